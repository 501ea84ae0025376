/// The version that a server announces to its clients.
///
/// Clients compare the numbers with QEMU's to know which commands and fields to expect.
package struct QMPVersion: Sendable, Hashable {
    /// QEMU's major version.
    package let major: Int
    /// QEMU's minor version.
    package let minor: Int
    /// QEMU's micro version.
    package let micro: Int
    /// The name of the server's build.
    package let package: String

    /// A version.
    package init(major: Int = 10, minor: Int = 2, micro: Int = 0, package: String = "pageferry") {
        self.major = major
        self.minor = minor
        self.micro = micro
        self.package = package
    }

    /// The result of `query-version`.
    var json: JSONValue {
        [
            "qemu": ["major": JSONValue(major), "minor": JSONValue(minor), "micro": JSONValue(micro)],
            "package": .string(package),
        ]
    }

    /// Reads a version; nil if the value lacks one of the numbers.
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
