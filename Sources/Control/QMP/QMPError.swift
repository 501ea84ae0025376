/// The error with which a QMP command fails, as it is sent to the client.
package struct QMPError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The class of an error, by which a program may decide what to do.
    ///
    /// The classes are those of QEMU's `QapiErrorClass`. An unknown class of another server is kept as it is.
    package struct Class: RawRepresentable, Sendable, Hashable {
        /// The name on the wire.
        package let rawValue: String

        /// A class by its name on the wire.
        package init(rawValue: String) { self.rawValue = rawValue }

        /// Any error that has no class of its own.
        package static let genericError = Class(rawValue: "GenericError")
        /// The command does not exist, or not in this mode.
        package static let commandNotFound = Class(rawValue: "CommandNotFound")
        /// A device has not been activated.
        package static let deviceNotActive = Class(rawValue: "DeviceNotActive")
        /// The device does not exist.
        package static let deviceNotFound = Class(rawValue: "DeviceNotFound")
        /// KVM lacks a capability that is needed.
        package static let kvmMissingCap = Class(rawValue: "KVMMissingCap")
    }

    /// The class of the error, by which a program may decide what to do.
    package let errorClass: Class
    /// The error in one line, for people.
    package let description: String

    /// An error of this class, described in one line.
    package init(_ errorClass: Class, _ description: String) {
        self.errorClass = errorClass
        self.description = description
    }

    /// A `GenericError`, described in one line.
    package static func generic(_ description: String) -> QMPError {
        QMPError(.genericError, description)
    }

    /// A `CommandNotFound` for a command of this name.
    package static func commandNotFound(_ name: String) -> QMPError {
        QMPError(.commandNotFound, "The command \(name) has not been found")
    }
}
