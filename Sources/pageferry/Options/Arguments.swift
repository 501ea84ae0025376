public import ArgumentParser
import Foundation
import LinuxSystem
public import Logging
import Workloads

extension Logger.Level: @retroactive ExpressibleByArgument {}

/// Reads the value of `--device`, such as `broken:load`.
func readDevice(_ text: String) throws -> DeviceSpecification {
    do throws(WorkloadError) {
        return try DeviceSpecification(parsing: text)
    } catch {
        throw ValidationError("\(error)")
    }
}

/// Reads a time.
func readTime(_ text: String) throws -> TimeSpan {
    try readTime(text, usual: "s")
}

/// Reads the pause of a workload's thread, which is short.
func readPause(_ text: String) throws -> TimeSpan {
    try readTime(text, usual: "us")
}

private func readTime(_ text: String, usual: String) throws -> TimeSpan {
    guard !text.hasPrefix("-") else { throw ValidationError("a time must not be negative") }
    let remedy = TimeSpan.remedy(text, usual: usual) ?? ", such as 500ms"
    return try read(text, "write a number with its unit: ns, us, ms or s\(remedy)")
}

/// Reads the value of `--page-size`.
func readPageSize(_ text: String) throws -> ByteCount {
    // The error of `ByteCount` would offer sizes that no page has.
    guard let size = try? ByteCount(text) else {
        throw ValidationError("write 4KiB, or 2MiB for huge pages from the kernel's pool")
    }
    return size
}

/// Reads the value of `--guest`.
func readGuest(_ text: String) throws -> GuestOption {
    try read(text, "write firecracker:PATH, where PATH is Firecracker's API socket, of 1 to 107 bytes")
}

/// Reads the value of `--lease`.
func readLease(_ text: String) throws -> LeaseOption {
    try read(
        text,
        "write DIR/NAME: a directory that both hosts mount, and the workload's name in it, of 1 to 64 characters A-Z, a-z, "
            + "0-9, '.', '_' and '-', and not a '.' first"
    )
}

/// Reads a value, or throws an error that describes the valid form.
private func read<Value: ExpressibleByArgument>(_ text: String, _ form: String) throws -> Value {
    guard let value = Value(argument: text) else { throw ValidationError(form) }
    return value
}

/// Refuses to listen at an address that other hosts can reach, unless the operator allows that.
///
/// A host that does not exist is refused first, since no option makes that host exist.
///
/// - Parameters:
///   - isAllowed: whether `--insecure` is given.
///   - consequence: what everyone who can connect can do then.
func requireLocal(_ address: SocketAddress, unless isAllowed: Bool, _ consequence: String) throws {
    guard !address.isLocal, !isAllowed else { return }
    do throws(SystemError) {
        try address.requireKnownHost()
    } catch {
        throw ValidationError("\(error); an address that other hosts can reach also needs --insecure")
    }
    throw ValidationError(
        "\(address) can be reached from other hosts\(consequence); use 127.0.0.1, or add --insecure"
    )
}

/// Refuses a path of `--attach` that no Unix socket can have, or that is a control socket.
func requireSocketPath(_ path: String?, besides control: [SocketAddress]) throws {
    guard let path else { return }
    let address: SocketAddress
    do {
        address = try SocketAddress("unix:\(path)")
    } catch {
        throw ValidationError("--attach: \(error.reason)")
    }
    guard !control.contains(address) else {
        throw ValidationError("--qmp and --attach name the same socket, \(path); name two")
    }
}

/// Refuses 0.0.0.0 and [::], at which a source would dial its own host.
func requireDialable(_ uri: SocketAddress) throws {
    guard case .tcp(_, let port) = uri, uri.isEveryAddress else { return }
    throw ValidationError(
        "\(uri) means every address of a host and cannot be dialed; give the destination's own: tcp:HOST:\(port)"
    )
}

/// Refuses port 0, which means any free port and cannot be dialed.
func requirePort(_ uri: SocketAddress) throws {
    guard case .tcp(_, 0) = uri else { return }
    throw ValidationError(
        "\(uri) means any free port and cannot be dialed; give the port at which the other side listens"
    )
}

/// Reads an address in the form of `SocketAddress.init(_:)`, or a text that looks like the path of a Unix socket.
///
/// A text without a colon looks like a path if it contains `/`, ends in `.sock`, or names a file that exists.
func readAddress(_ text: String) throws -> SocketAddress {
    let isBare = !text.contains(":")
    let looksLikePath = text.contains("/") || text.hasSuffix(".sock") || FileManager.default.fileExists(atPath: text)
    do throws(SocketAddressError) {
        if isBare, looksLikePath, !text.hasPrefix("tcp:") { return try SocketAddress("unix:\(text)") }
        return try SocketAddress(text)
    } catch {
        throw ValidationError(error.reason + addressRemedy(text))
    }
}

/// Reads the address of a control socket: a path, unless the text has a colon or is a number.
func readControl(_ text: String) throws -> SocketAddress {
    guard !text.isEmpty else { throw ValidationError("write the path of a Unix socket") }
    return try readAddress(text.contains(":") || Int(text) != nil ? text : "unix:\(text)")
}

/// Returns the end of an error message: the address that a text without a host or a port may mean.
private func addressRemedy(_ text: String) -> String {
    let rest = text.hasPrefix("tcp:") ? text.dropFirst(4) : text[...]
    if let slashes = rest.firstRange(of: "//") { return "; write tcp:\(rest[slashes.upperBound...])" }
    if let port = UInt16(rest.drop { $0 == ":" }) { return "; write 127.0.0.1:\(port), or an address of the host" }
    return rest.contains(":") ? "" : "; write \(rest.isEmpty ? "HOST" : rest):PORT"
}

extension SocketAddress: CodableAsText {
    init?(argument: String) {
        // The caller's error names the text.
        guard let address = try? SocketAddress(argument) else { return nil }
        self = address
    }
}
