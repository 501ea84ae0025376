import Foundation

/// Two hosts: network namespaces joined by a veth pair whose rate is limited.
///
/// Both are removed with the object.
final class TwoHosts: Sendable {
    static let sourceAddress = "10.77.0.1"
    static let destinationAddress = "10.77.0.2"

    let source: String
    let destination: String
    private let link: HostLink

    /// Makes the hosts.
    ///
    /// - Parameter rate: the rate of the link in each direction, in tc's notation.
    init(rate: String = "2gbit") throws {
        let id = String(UInt32.random(in: 0...UInt32.max), radix: 16)
        source = "pfs\(id)"
        destination = "pfd\(id)"
        do {
            for host in [source, destination] { try Host.add(host) }
            link = try HostLink(source, destination, id: id, network: "10.77.0", rate: rate)
        } catch {
            for host in [source, destination] { Host.remove(host) }
            throw error
        }
    }

    deinit {
        for host in [source, destination] { Host.remove(host) }
    }

    /// Starts a program on a host.
    func run(on host: String, _ path: String, _ arguments: [String]) throws -> Running {
        try Running("/sbin/ip", ["netns", "exec", host, path] + arguments)
    }

    /// Takes the link down without notice to either side.
    func cutLink() throws { try link.cut() }

    /// Puts the link back.
    func mendLink() throws { try link.mend() }

    /// Loses all packets that a host sends; packets to the host still arrive.
    func loseWhat(_ host: String) throws { try link.loseWhat(host) }

    /// Ends ``loseWhat(_:)``.
    func loseNothing(_ host: String) throws { try link.loseNothing(host) }
}
