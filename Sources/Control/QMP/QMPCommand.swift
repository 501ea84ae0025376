/// A command as a client sent it.
package struct QMPCommand: Sendable, Hashable {
    /// The command's name, for example `query-status`.
    package let name: String
    /// The command's arguments; empty if the client sent none.
    package let arguments: [String: JSONValue]
    /// The client's identifier for the command, which the answer repeats.
    ///
    /// Nil if the client sent none.
    package let id: JSONValue?

    /// A command.
    package init(name: String, arguments: [String: JSONValue] = [:], id: JSONValue? = nil) {
        self.name = name
        self.arguments = arguments
        self.id = id
    }
}

extension QMPCommand {
    /// Refuses every argument whose name is not in a list.
    ///
    /// - Parameter parameters: the names of all arguments that the command takes.
    /// - Throws: `GenericError` "Parameter 'x' is unexpected".
    package func allowOnly(_ parameters: String...) throws(QMPError) {
        for name in arguments.keys.sorted() where !parameters.contains(name) {
            throw .generic("Parameter '\(name)' is unexpected")
        }
    }

    /// Returns a required argument, which is a string.
    ///
    /// - Throws: `GenericError` if the argument is missing or not a string.
    package func string(_ parameter: String) throws(QMPError) -> String {
        try required(parameter, "string", \.string)
    }

    /// Returns an optional argument, which is a string if present.
    ///
    /// - Throws: `GenericError` if the argument is present and not a string.
    package func stringIfPresent(_ parameter: String) throws(QMPError) -> String? {
        try optional(parameter, "string", \.string)
    }

    /// Returns a required argument, which is a whole number.
    ///
    /// - Throws: `GenericError` if the argument is missing or not a whole number.
    package func integer(_ parameter: String) throws(QMPError) -> Int64 {
        try required(parameter, "integer", \.integer)
    }

    /// Returns an optional argument, which is a whole number if present.
    ///
    /// - Throws: `GenericError` if the argument is present and not a whole number.
    package func integerIfPresent(_ parameter: String) throws(QMPError) -> Int64? {
        try optional(parameter, "integer", \.integer)
    }

    /// Returns a required argument, which is a boolean.
    ///
    /// - Throws: `GenericError` if the argument is missing or not a boolean.
    package func boolean(_ parameter: String) throws(QMPError) -> Bool {
        try required(parameter, "boolean", \.boolean)
    }

    /// Returns an optional argument, which is a boolean if present.
    ///
    /// - Throws: `GenericError` if the argument is present and not a boolean.
    package func booleanIfPresent(_ parameter: String) throws(QMPError) -> Bool? {
        try optional(parameter, "boolean", \.boolean)
    }

    /// Returns a required argument, which is a list.
    ///
    /// - Throws: `GenericError` if the argument is missing or not a list.
    package func array(_ parameter: String) throws(QMPError) -> [JSONValue] {
        try required(parameter, "array", \.array)
    }

    /// Returns an optional argument, which is a list if present.
    ///
    /// - Throws: `GenericError` if the argument is present and not a list.
    package func arrayIfPresent(_ parameter: String) throws(QMPError) -> [JSONValue]? {
        try optional(parameter, "array", \.array)
    }

    private func required<Value>(
        _ parameter: String,
        _ type: String,
        _ read: (JSONValue) -> Value?
    ) throws(QMPError) -> Value {
        guard let value = try optional(parameter, type, read) else {
            throw .generic("Parameter '\(parameter)' is missing")
        }
        return value
    }

    private func optional<Value>(
        _ parameter: String,
        _ type: String,
        _ read: (JSONValue) -> Value?
    ) throws(QMPError) -> Value? {
        guard let argument = arguments[parameter] else { return nil }
        guard let value = read(argument) else {
            throw .generic("Invalid parameter type for '\(parameter)', expected: \(type)")
        }
        return value
    }
}
