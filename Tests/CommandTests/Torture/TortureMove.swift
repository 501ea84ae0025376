/// One migration of a round: its source and destination, and the commands that drive it.
final class TortureMove {
    let source: TortureAgent
    let destination: TortureAgent
    let link: HostLink
    /// The address at which the source connects to the destination.
    let uri: String
    /// A number in the names of the commands' logs.
    private let number: Int
    private let workspace: Workspace
    var migrate: Spawned
    /// How often `migrate` was started; it is started again after it was killed.
    private(set) var begins = 0
    /// The cancels at the source, and whether their answers are judged.
    var cancels: [(process: Spawned, isJudged: Bool)] = []
    /// Other commands of operators.
    ///
    /// Some of the commands never return.
    var words: [Spawned] = []
    var conts: [Spawned] = []
    /// Whether the source was stopped before it learned that the destination has every page.
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
        // A process that exits at once stands in until the migration begins.
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

    /// Starts a `pageferry` command.
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
        // Port 0, since the former port may still be in use.
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
