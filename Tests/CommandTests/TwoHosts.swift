import Foundation

/// Two hosts: network namespaces joined by a veth pair whose rate is limited. Both go with the object.
final class TwoHosts: Sendable {
    static let sourceAddress = "10.77.0.1"
    static let destinationAddress = "10.77.0.2"

    let source: String
    let destination: String

    /// Makes the hosts.
    ///
    /// - Parameter rate: what the link carries in each direction, in tc's words.
    init(rate: String = "2gbit") throws {
        let id = String(UInt32.random(in: 0...UInt32.max), radix: 16)
        source = "pfs\(id)"
        destination = "pfd\(id)"
        let (a, b) = ("vs\(id)", "vd\(id)")
        try TwoHosts.ip("netns", "add", source)
        try TwoHosts.ip("netns", "add", destination)
        try TwoHosts.ip("link", "add", a, "netns", source, "type", "veth", "peer", "name", b, "netns", destination)
        for (host, link, address) in [
            (source, a, TwoHosts.sourceAddress), (destination, b, TwoHosts.destinationAddress),
        ] {
            try TwoHosts.ip("-n", host, "addr", "add", "\(address)/24", "dev", link)
            try TwoHosts.ip("-n", host, "link", "set", link, "up")
            try TwoHosts.ip("-n", host, "link", "set", "lo", "up")
            try TwoHosts.check(
                "/sbin/tc",
                [
                    "-n", host, "qdisc", "add", "dev", link, "root", "tbf", "rate", rate, "burst", "1mb", "latency",
                    "50ms",
                ]
            )
        }
    }

    deinit {
        for host in [source, destination] {
            // A namespace that was never made cannot be removed.
            _ = try? Executable.run("/sbin/ip", ["netns", "del", host])
        }
    }

    /// Starts a program on a host.
    func run(on host: String, _ path: String, _ arguments: [String]) throws -> Running {
        try Running("/sbin/ip", ["netns", "exec", host, path] + arguments)
    }

    /// Takes the link away without a word to either side.
    func cutLink() throws {
        let id = source.dropFirst(3)
        try TwoHosts.ip("-n", source, "link", "set", "vs\(id)", "down")
    }

    /// Puts the link back.
    func mendLink() throws {
        let id = source.dropFirst(3)
        try TwoHosts.ip("-n", source, "link", "set", "vs\(id)", "up")
    }

    /// Sends what a host sends to nobody; what it is sent still arrives.
    func loseWhat(_ host: String) throws {
        let (link, other) = neighbour(of: host)
        let nobody = "02:00:00:00:00:01"
        try TwoHosts.ip("-n", host, "neigh", "replace", other, "lladdr", nobody, "dev", link, "nud", "permanent")
    }

    /// Ends ``loseWhat(_:)``.
    func loseNothing(_ host: String) throws {
        let (link, other) = neighbour(of: host)
        try TwoHosts.ip("-n", host, "neigh", "del", other, "dev", link)
    }

    private func neighbour(of host: String) -> (link: String, address: String) {
        let id = source.dropFirst(3)
        return host == source
            ? ("vs\(id)", TwoHosts.destinationAddress) : ("vd\(id)", TwoHosts.sourceAddress)
    }

    private static func ip(_ arguments: String...) throws {
        try check("/sbin/ip", arguments)
    }

    private static func check(_ path: String, _ arguments: [String]) throws {
        let finished = try Executable.run(path, arguments)
        guard finished.status == 0 else {
            throw TestFailure("\(path) \(arguments.joined(separator: " ")): \(finished.errors)")
        }
    }
}
