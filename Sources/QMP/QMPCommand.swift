/// A command as a client sent it.
public struct QMPCommand: Sendable, Hashable {
    /// What to do, for example `query-status`.
    public let name: String
    /// With what; empty if the client sent none.
    public let arguments: [String: JSONValue]
    /// What the client knows the command by; its answer carries the same value.
    ///
    /// Nil if the client sent none.
    public let id: JSONValue?

    /// A command.
    public init(name: String, arguments: [String: JSONValue] = [:], id: JSONValue? = nil) {
        self.name = name
        self.arguments = arguments
        self.id = id
    }
}

extension QMPCommand {
    /// Refuses arguments that the command does not know.
    ///
    /// - Parameter parameters: the names of all that it knows.
    /// - Throws: `GenericError` "Parameter 'x' is unexpected".
    public func allowOnly(_ parameters: String...) throws(QMPError) {
        for name in arguments.keys.sorted() where !parameters.contains(name) {
            throw .generic("Parameter '\(name)' is unexpected")
        }
    }

    /// A required string.
    ///
    /// - Throws: `GenericError` if it is missing or no string.
    public func string(_ parameter: String) throws(QMPError) -> String {
        try required(parameter, "string", \.string)
    }

    /// A string that may be left out.
    ///
    /// - Throws: `GenericError` if it is there and no string.
    public func stringIfPresent(_ parameter: String) throws(QMPError) -> String? {
        try optional(parameter, "string", \.string)
    }

    /// A required whole number.
    ///
    /// - Throws: `GenericError` if it is missing or no whole number.
    public func integer(_ parameter: String) throws(QMPError) -> Int64 {
        try required(parameter, "integer", \.integer)
    }

    /// A whole number that may be left out.
    ///
    /// - Throws: `GenericError` if it is there and no whole number.
    public func integerIfPresent(_ parameter: String) throws(QMPError) -> Int64? {
        try optional(parameter, "integer", \.integer)
    }

    /// A required boolean.
    ///
    /// - Throws: `GenericError` if it is missing or no boolean.
    public func boolean(_ parameter: String) throws(QMPError) -> Bool {
        try required(parameter, "boolean", \.boolean)
    }

    /// A boolean that may be left out.
    ///
    /// - Throws: `GenericError` if it is there and no boolean.
    public func booleanIfPresent(_ parameter: String) throws(QMPError) -> Bool? {
        try optional(parameter, "boolean", \.boolean)
    }

    /// A required list.
    ///
    /// - Throws: `GenericError` if it is missing or no list.
    public func array(_ parameter: String) throws(QMPError) -> [JSONValue] {
        try required(parameter, "array", \.array)
    }

    /// A list that may be left out.
    ///
    /// - Throws: `GenericError` if it is there and no list.
    public func arrayIfPresent(_ parameter: String) throws(QMPError) -> [JSONValue]? {
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
