/// Sixteen opaque bytes that name something; `Subject` keeps one sort from being taken for another.
public struct Identifier<Subject>: Hashable, Sendable {
    /// The bytes as a number whose hexadecimal digits are the bytes in the order of the wire.
    public let value: UInt128

    /// An identifier of the given bytes, first byte on the wire in the top bits.
    public init(_ value: UInt128) {
        self.value = value
    }

    /// Reads exactly 32 hexadecimal digits; anything else gives nil.
    public init?(hex: String) {
        guard hex.utf8.count == 32, !hex.hasPrefix("+"), !hex.hasPrefix("-"), let value = UInt128(hex, radix: 16)
        else { return nil }
        self.value = value
    }

    /// Sixteen zero bytes: what a dialer gives as nonce.
    public static var zero: Self { Self(0) }

    /// A fresh one that is not zero, from the system's random source (getrandom).
    public static func random() -> Self {
        Self(UInt128.random(in: 1...UInt128.max))
    }
}

extension Identifier: CustomStringConvertible {
    /// The bytes as 32 hexadecimal digits in the order of the wire.
    public var description: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 32 - digits.utf8.count) + digits
    }
}

/// What an ``Identifier`` names.
public enum IdentifierSubject {
    /// One migration, over all of its connections.
    public enum Migration {}
    /// One process, drawn when it started.
    public enum Instance {}
    /// One control connection: the key with which lanes join it.
    public enum Connection {}
}

/// Names a migration on both hosts, over every reconnection.
public typealias MigrationID = Identifier<IdentifierSubject.Migration>
/// Names one agent process: a restarted one has another.
public typealias InstanceID = Identifier<IdentifierSubject.Instance>
/// Given by the accepting side in its HELLO, given back by the dialer in each JOIN.
public typealias Nonce = Identifier<IdentifierSubject.Connection>
