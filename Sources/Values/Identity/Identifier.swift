/// Sixteen opaque bytes that name a migration, a process or a connection; `Subject` keeps the three apart.
package struct Identifier<Subject>: Hashable, Sendable {
    /// The bytes as a number whose hexadecimal digits are the bytes in the order of the wire.
    package let value: UInt128

    /// An identifier of the given bytes, first byte on the wire in the top bits.
    package init(_ value: UInt128) {
        self.value = value
    }

    /// Reads exactly 32 hexadecimal digits, or returns nil.
    package init?(hex: String) {
        guard hex.utf8.count == 32, !hex.hasPrefix("+"), !hex.hasPrefix("-"), let value = UInt128(hex, radix: 16)
        else { return nil }
        self.value = value
    }

    /// Sixteen zero bytes, which a dialer sends as its nonce.
    package static var zero: Self { Self(0) }

    /// A fresh identifier that is not zero, from the system's random source (getrandom).
    package static func random() -> Self {
        Self(UInt128.random(in: 1...UInt128.max))
    }
}

extension Identifier: CustomStringConvertible {
    /// The bytes as 32 hexadecimal digits in the order of the wire.
    package var description: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 32 - digits.utf8.count) + digits
    }
}

/// What an ``Identifier`` names.
package enum IdentifierSubject {
    /// One migration, over all of its connections.
    package enum Migration {}
    /// One process, drawn when it started.
    package enum Instance {}
    /// One control connection: the key with which lanes join it.
    package enum Connection {}
}

/// Names a migration on both hosts, over every reconnection.
package typealias MigrationID = Identifier<IdentifierSubject.Migration>
/// Names one agent process; a restarted agent has a new identifier.
package typealias InstanceID = Identifier<IdentifierSubject.Instance>
/// The key of a control connection: the accepting side gives it in its HELLO, and the dialer repeats it in each JOIN.
package typealias Nonce = Identifier<IdentifierSubject.Connection>
