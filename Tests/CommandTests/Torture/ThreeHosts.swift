/// Three hosts with a link between each two of them.
///
/// The hosts are removed with the object.
final class ThreeHosts: Sendable {
    let source: String
    let destination: String
    let third: String
    private let links: [HostLink]

    /// Makes the hosts.
    ///
    /// - Parameter rate: the rate of a link in each direction, in tc's notation.
    init(rate: String) throws {
        let id = String(UInt32.random(in: 0...UInt32.max), radix: 16)
        let hosts = ["pfs\(id)", "pfd\(id)", "pft\(id)"]
        (source, destination, third) = (hosts[0], hosts[1], hosts[2])
        do {
            for host in hosts { try Host.add(host) }
            links = try [(0, 1), (0, 2), (1, 2)].enumerated().map { number, pair in
                try HostLink(
                    hosts[pair.0],
                    hosts[pair.1],
                    id: "\(number)\(id)",
                    network: "10.77.\(number)",
                    rate: rate,
                    shaping: .rateAndOpenings
                )
            }
        } catch {
            for host in hosts { Host.remove(host) }
            throw error
        }
    }

    deinit {
        for host in [source, destination, third] { Host.remove(host) }
    }

    /// The link between two of the hosts.
    func link(_ one: String, _ other: String) -> HostLink {
        guard let link = links.first(where: { Set([$0.one.host, $0.other.host]) == [one, other] }) else {
            preconditionFailure("\(one) and \(other) are not two of the hosts")
        }
        return link
    }

    /// Ends every fault of all links.
    func mend() {
        for link in links { link.mendAll() }
    }

    /// How many packets that open connections were lost.
    func lostOpenings() throws -> Int {
        try links.reduce(0) { try $0 + $1.lostOpenings(of: $1.one.host) + $1.lostOpenings(of: $1.other.host) }
    }

    /// The address of a host on the link to another.
    func address(of host: String, from other: String) -> String {
        let link = link(host, other)
        return link.one.host == host ? link.one.address : link.other.address
    }
}
