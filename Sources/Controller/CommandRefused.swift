/// A command that cannot be carried out now.
struct CommandRefused: Error, CustomStringConvertible {
    let reason: String
    var description: String { reason }
}
