/// A command that a server knows: the name, arguments and result that clients see.
package struct QMPCommandDescription: Sendable, Hashable {
    /// The name on the wire.
    package let name: String
    /// The arguments that the command takes.
    package let arguments: [QMPMember]
    /// The type of the command's result.
    package let result: QMPType
    /// Whether the command may take long because its result depends on another party.
    ///
    /// A patient command with an id does not hold up the commands after it: the id tells the client which command an
    /// answer belongs to.
    package let isPatient: Bool

    /// Describes a command.
    package init(
        _ name: String,
        arguments: [QMPMember] = [],
        result: QMPType = .nothing,
        isPatient: Bool = false
    ) {
        self.name = name
        self.arguments = arguments
        self.result = result
        self.isPatient = isPatient
    }

    /// Refuses arguments that are unknown, missing or of another kind.
    ///
    /// The handler must check what is inside arrays and objects.
    ///
    /// - Throws: `GenericError` that names the argument.
    func check(_ command: QMPCommand) throws(QMPError) {
        for (name, value) in command.arguments.sorted(by: { $0.key < $1.key }) {
            guard let argument = arguments.first(where: { $0.name == name }) else {
                throw .generic("Parameter '\(name)' is unexpected")
            }
            if let kind = argument.type.kindExpected(insteadOf: value) {
                throw .generic("Invalid parameter type for '\(name)', expected: \(kind)")
            }
        }
        for argument in arguments where !argument.isOptional && command.arguments[argument.name] == nil {
            throw .generic("Parameter '\(argument.name)' is missing")
        }
    }
}

/// An event that a server sends.
package struct QMPEventDescription: Sendable, Hashable {
    /// The name on the wire.
    package let name: String
    /// The members of the event's data.
    package let data: [QMPMember]

    /// Describes an event.
    package init(_ name: String, data: [QMPMember] = []) {
        self.name = name
        self.data = data
    }
}
