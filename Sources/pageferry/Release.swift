import ArgumentParser
import PageProtocol
import QMP

/// The release of Pageferry.
enum Release {
    /// The version number of the release.
    static let number = "0.1.0"

    /// The version that QMP clients receive: the QEMU whose commands and fields are implemented, and the release.
    static let qmp = QMPVersion(package: name)

    private static let name = "pageferry \(number)"

    /// The release and the versions of its protocols, in one line.
    static let description =
        "\(name), page protocol \(Wire.version), QMP of QEMU \(qmp.major).\(qmp.minor).\(qmp.micro)"
}
