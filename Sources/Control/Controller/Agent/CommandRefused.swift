/// The reason why a command cannot be carried out now.
struct CommandRefused: Error, Equatable, CustomStringConvertible {
    let reason: String
    var description: String { reason }
}
