/// The error that a QMP command ends with, as it goes over the wire.
public struct QMPError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What a program may decide by.
    ///
    /// QEMU's `QapiErrorClass`; an unknown class of another server is kept as it is.
    public struct Class: RawRepresentable, Sendable, Hashable {
        /// The name on the wire.
        public let rawValue: String

        /// A class by its name on the wire.
        public init(rawValue: String) { self.rawValue = rawValue }

        /// Everything that has no class of its own.
        public static let genericError = Class(rawValue: "GenericError")
        /// There is no such command, or not in this mode.
        public static let commandNotFound = Class(rawValue: "CommandNotFound")
        /// A device has not been activated.
        public static let deviceNotActive = Class(rawValue: "DeviceNotActive")
        /// There is no such device.
        public static let deviceNotFound = Class(rawValue: "DeviceNotFound")
        /// KVM lacks something that is needed.
        public static let kvmMissingCap = Class(rawValue: "KVMMissingCap")
    }

    /// What a program may decide by.
    public let errorClass: Class
    /// One line for people.
    public let description: String

    /// An error of this class that says why in one line.
    public init(_ errorClass: Class, _ description: String) {
        self.errorClass = errorClass
        self.description = description
    }

    /// `GenericError` with this line.
    public static func generic(_ description: String) -> QMPError {
        QMPError(.genericError, description)
    }

    /// `CommandNotFound` for a command of this name.
    public static func commandNotFound(_ name: String) -> QMPError {
        QMPError(.commandNotFound, "The command \(name) has not been found")
    }
}
