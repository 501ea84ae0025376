/// The version that a server tells its clients.
///
/// Clients compare the numbers with QEMU's to know which commands and fields to expect.
public struct QMPVersion: Sendable, Hashable {
    /// QEMU's major version.
    public let major: Int
    /// QEMU's minor version.
    public let minor: Int
    /// QEMU's micro version.
    public let micro: Int
    /// Whose build it is.
    public let package: String

    /// A version.
    public init(major: Int = 10, minor: Int = 2, micro: Int = 0, package: String = "pageferry") {
        self.major = major
        self.minor = minor
        self.micro = micro
        self.package = package
    }

    /// What `query-version` returns.
    var json: JSONValue {
        [
            "qemu": ["major": JSONValue(major), "minor": JSONValue(minor), "micro": JSONValue(micro)],
            "package": .string(package),
        ]
    }

    /// Nil if the value lacks a number.
    init?(json: JSONValue) {
        guard let qemu = json["qemu"], let major = qemu["major"]?.integer, let minor = qemu["minor"]?.integer,
            let micro = qemu["micro"]?.integer
        else { return nil }
        self.init(
            major: Int(major),
            minor: Int(minor),
            micro: Int(micro),
            package: json["package"]?.string ?? ""
        )
    }
}
