import Foundation
import Synchronization

/// A link between two hosts, which are network namespaces: a veth pair whose rate is limited.
///
/// Removing the hosts removes the link.
final class HostLink: Sendable {
    /// One end of a link.
    struct End: Sendable {
        let host: String
        let address: String
        fileprivate let device: String
    }

    /// What a link limits: only the rate, or also the packets that open connections.
    enum Shaping {
        case rate, rateAndOpenings
    }

    let one: End
    let other: End
    private let faults = Mutex(Faults())

    private struct Faults {
        var isCut = false
        /// The hosts whose packets are all lost.
        var unheard: Set<String> = []
        /// The hosts whose packets that open connections are lost.
        var silenced: Set<String> = []
    }

    /// Joins two hosts.
    ///
    /// - Parameters:
    ///   - id: a unique name of the link, of at most 12 characters.
    ///   - network: the first three numbers of the addresses; the ends have 1 and 2 as the fourth.
    ///   - rate: the rate of the link in each direction, in tc's notation.
    init(_ one: String, _ other: String, id: String, network: String, rate: String, shaping: Shaping = .rate) throws {
        self.one = End(host: one, address: "\(network).1", device: "va\(id)")
        self.other = End(host: other, address: "\(network).2", device: "vb\(id)")
        let (a, b) = (self.one, self.other)
        try Host.ip("link", "add", a.device, "netns", a.host, "type", "veth", "peer", "name", b.device, "netns", b.host)
        for end in [a, b] {
            try Host.ip("-n", end.host, "addr", "add", "\(end.address)/24", "dev", end.device)
            try Host.ip("-n", end.host, "link", "set", end.device, "up")
            switch shaping {
            case .rate:
                try HostLink.tc(
                    end,
                    "qdisc add dev \(end.device) root tbf rate \(rate) burst 1mb latency 50ms"
                )
            case .rateAndOpenings:
                try HostLink.tc(end, "qdisc add dev \(end.device) root handle 1: htb default 1")
                try HostLink.tc(
                    end,
                    "class add dev \(end.device) parent 1: classid 1:1 htb rate \(rate) burst 1mb cburst 1mb quantum 60000"
                )
                // A queue without room drops every packet.
                try HostLink.tc(
                    end,
                    "class add dev \(end.device) parent 1: classid 1:2 htb rate 1mbit quantum 60000"
                )
                try HostLink.tc(end, "qdisc add dev \(end.device) parent 1:2 pfifo limit 0")
            }
        }
    }

    /// Takes the link down without notice to either side.
    func cut() throws {
        faults.withLock { faults in
            faults.isCut = true
            // Taking this end down removes its neighbour entry; the other end keeps its own.
            faults.unheard.remove(one.host)
        }
        try Host.ip("-n", one.host, "link", "set", one.device, "down")
    }

    /// Puts the link back.
    func mend() throws {
        faults.withLock { $0.isCut = false }
        try Host.ip("-n", one.host, "link", "set", one.device, "up")
    }

    /// Loses all packets that a host sends; packets to the host still arrive.
    func loseWhat(_ host: String) throws {
        let (end, neighbour) = ends(from: host)
        faults.withLock { _ = $0.unheard.insert(host) }
        let nobody = "02:00:00:00:00:01"
        try Host.ip(
            "-n",
            host,
            "neigh",
            "replace",
            neighbour.address,
            "lladdr",
            nobody,
            "dev",
            end.device,
            "nud",
            "permanent"
        )
    }

    /// Ends ``loseWhat(_:)``.
    func loseNothing(_ host: String) throws {
        guard faults.withLock({ $0.unheard.remove(host) }) != nil else { return }
        let (end, neighbour) = ends(from: host)
        try Host.ip("-n", host, "neigh", "del", neighbour.address, "dev", end.device)
    }

    /// Ends every fault of the link.
    func mendAll() {
        let faults = faults.withLock { $0 }
        // If the link cannot be mended, its next user fails.
        if faults.isCut { try? mend() }
        for host in faults.unheard { try? loseNothing(host) }
        for host in faults.silenced { try? loseNoOpenings(host) }
    }

    /// Loses the packets by which a host opens connections, until ``loseNoOpenings(_:)``.
    ///
    /// TCP repeats the packets after 1 s and after 3 s. Only for links that were made with ``Shaping/rateAndOpenings``.
    ///
    /// - Parameter port: selects the connections whose port has this number in its bits 1 and 2; nil selects all.
    func loseOpenings(_ host: String, port: Int?) throws {
        guard faults.withLock({ $0.silenced.insert(host).inserted }) else { return }
        let (end, _) = ends(from: host)
        // Bit 0 is the same in all ports that the kernel chooses.
        let only = port.map { " match ip sport \($0 << 1) 0x6" } ?? ""
        try HostLink.tc(
            end,
            "filter add dev \(end.device) parent 1: protocol ip prio 1 u32 match ip protocol 6 0xff"
                + " match u8 0x02 0x3f at 33\(only) flowid 1:2"
        )
    }

    /// Ends ``loseOpenings(_:port:)``.
    func loseNoOpenings(_ host: String) throws {
        guard faults.withLock({ $0.silenced.remove(host) }) != nil else { return }
        let (end, _) = ends(from: host)
        try HostLink.tc(end, "filter del dev \(end.device) parent 1: prio 1")
    }

    /// How many of a host's packets ``loseOpenings(_:port:)`` has lost.
    func lostOpenings(of host: String) throws -> Int {
        let (end, _) = ends(from: host)
        let shown = try Executable.run("/sbin/tc", ["-n", host, "-j", "-s", "qdisc", "show", "dev", end.device])
        let queues = try JSONSerialization.jsonObject(with: Data(shown.output.utf8)) as? [[String: Any]] ?? []
        return queues.first { $0["parent"] as? String == "1:2" }?["drops"] as? Int ?? 0
    }

    private func ends(from host: String) -> (End, neighbour: End) { host == one.host ? (one, other) : (other, one) }

    private static func tc(_ end: End, _ words: String) throws {
        try Host.check("/sbin/tc", ["-n", end.host] + words.split(separator: " ").map(String.init))
    }
}

/// Network namespaces as hosts.
enum Host {
    /// Makes a host whose loopback is up.
    static func add(_ name: String) throws {
        try ip("netns", "add", name)
        try ip("-n", name, "link", "set", "lo", "up")
    }

    /// Removes a host with its links.
    static func remove(_ name: String) {
        // A namespace that was never made cannot be removed.
        _ = try? Executable.run("/sbin/ip", ["netns", "del", name])
    }

    static func ip(_ arguments: String...) throws { try check("/sbin/ip", arguments) }

    static func check(_ path: String, _ arguments: [String]) throws {
        let finished = try Executable.run(path, arguments)
        guard finished.status == 0 else {
            throw TestFailure("\(path) \(arguments.joined(separator: " ")): \(finished.errors)")
        }
    }
}
