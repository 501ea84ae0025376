/// One migration of a round: from whom to whom, and the commands that drive it.
final class TortureMove {
    let source: TortureAgent
    let destination: TortureAgent
    let link: HostLink
    /// Where the source is to find the destination.
    let uri: String
    /// Distinguishes the logs of its commands.
    private let number: Int
    private let workspace: Workspace
    var migrate: Spawned
    /// How often that was started; again after it was killed.
    private(set) var begins = 0
    /// Cancels at the source, and whether their answers are judged.
    var cancels: [(process: Spawned, isJudged: Bool)] = []
    /// Other commands of operators. Some wait for ever.
    var words: [Spawned] = []
    var conts: [Spawned] = []
    /// The source was stopped before it had heard that the destination has everything.
    var isUnfinished = false

    init(
        _ number: Int,
        from source: TortureAgent,
        to destination: TortureAgent,
        over hosts: ThreeHosts,
        in workspace: Workspace
    ) throws {
        self.number = number
        self.source = source
        self.destination = destination
        self.workspace = workspace
        link = hosts.link(source.host, destination.host)
        uri = "tcp:\(hosts.address(of: destination.host, from: source.host)):7000"
        // Replaced when the migration begins: a process that ends at once.
        migrate = try Spawned(["/bin/true"], log: "/dev/null")
    }

    func begin() throws {
        begins += 1
        migrate = try startMigrate("migrate")
    }

    func startMigrate(_ name: String) throws -> Spawned {
        let ends = ["--source", source.socket, "--destination", destination.socket, "--uri", uri]
        return try command(name, ["migrate", "--json"] + ends)
    }

    /// Starts a command of Pageferry's.
    func command(_ name: String, _ arguments: [String]) throws -> Spawned {
        try Spawned(
            [Executable.pageferry] + arguments,
            log: workspace.file("\(name)-\(number).log")
        )
    }

    func cont() throws {
        guard !conts.contains(where: \.isAlive) else { return }
        conts.append(try command("cont", ["cont", destination.socket]))
    }

    func recover() throws {
        // Over an address that cannot be in use still.
        let uri = uri.dropLast(5) + ":0"
        words.append(
            try command(
                "recover",
                ["recover", "--source", source.socket, "--destination", destination.socket, "--uri", String(uri)]
            )
        )
    }

    var processes: [Spawned] { [migrate] + cancels.map(\.process) + words + conts }
}
