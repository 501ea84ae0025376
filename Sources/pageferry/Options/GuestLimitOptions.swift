import ArgumentParser
import FaultHandler

/// The options of `attach` about how many guests are served, and whose.
struct GuestLimitOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("The most guests at a time. --on-refused is applied to a further one.", valueName: "number")
    )
    var maxGuests = GuestLimits().total

    @Option(help: ArgumentHelp("The most guests of one user at a time.", valueName: "number"))
    var maxGuestsPerUid = GuestLimits().perUser

    @Option(
        help: ArgumentHelp(
            "Serve only processes of this user, by number. May be repeated (default: of every user who can open the "
                + "socket).",
            valueName: "uid"
        ),
        transform: { text in
            guard let user = AttachSocketOptions.readNumber(text[...]) else {
                throw ValidationError("write the number of a user, such as 1234")
            }
            return user
        }
    )
    var allowUid: [UInt32] = []

    /// The most guests that one process can serve.
    private static let bounds = 1...65_536

    func validate() throws {
        for (name, value) in [("--max-guests", maxGuests), ("--max-guests-per-uid", maxGuestsPerUid)]
        where !GuestLimitOptions.bounds.contains(value) {
            throw ValidationError("\(name) must be 1 to \(GuestLimitOptions.bounds.upperBound)")
        }
    }

    var limits: GuestLimits {
        GuestLimits(total: maxGuests, perUser: maxGuestsPerUid, users: Set(allowUid))
    }
}
