import Identity
import QMP
import Switchover

/// The commands that an agent carries out, as `query-commands` and `query-qmp-schema` describe them.
///
/// The agent refuses every other command.
enum AgentCommand: String, CaseIterable {
    case cont, migrate, quit, stop
    case migrateCancel = "migrate_cancel"
    case migratePause = "migrate-pause"
    case migrateRecover = "migrate-recover"
    case destinationGone = "pageferry-destination-gone"
    case sourceGone = "pageferry-source-gone"
    case migrateContinue = "migrate-continue"
    case migrateIncoming = "migrate-incoming"
    case migrateStartPostcopy = "migrate-start-postcopy"
    case queryCapabilities = "query-migrate-capabilities"
    case queryMigrate = "query-migrate"
    case queryName = "query-name"
    case queryParameters = "query-migrate-parameters"
    case queryStatus = "query-status"
    case queryThreads = "query-migrationthreads"
    case setCapabilities = "migrate-set-capabilities"
    case setParameters = "migrate-set-parameters"
    case report = "pageferry-report"
    case verify = "pageferry-verify"

    /// The descriptions of all commands for clients.
    static let descriptions = allCases.map {
        QMPCommandDescription($0.rawValue, arguments: $0.arguments, result: $0.result, isPatient: $0.isPatient)
    }

    /// The arguments of a command.
    private var arguments: [QMPMember] {
        switch self {
        case .migrate:
            // QEMU's clients send `detach`, which has no effect in QEMU either.
            AgentCommand.address + [
                .optional("resume", .boolean), .optional("detach", .boolean),
                .optional("pageferry-destination", .string),
            ]
        case .migrateIncoming:
            AgentCommand.address + [.optional("exit-on-error", .boolean), .optional("pageferry-provisional", .boolean)]
        case .migrateRecover: [.required("uri", .string)]
        case .migrateContinue: [.required("state", .words(MigrationState.allCases.map(\.rawValue)))]
        case .destinationGone: [.required("has-run", .boolean)]
        case .setCapabilities: [.required("capabilities", AgentCommand.capabilities)]
        case .setParameters: MigrationParameter.allCases.map { .optional($0.rawValue, $0.type) }
        case .cont, .migrateCancel, .migratePause, .migrateStartPostcopy, .queryCapabilities, .queryMigrate, .queryName,
            .queryParameters, .queryStatus, .queryThreads, .quit, .report, .sourceGone, .stop, .verify:
            []
        }
    }

    /// The type of a command's result.
    private var result: QMPType {
        switch self {
        case .queryCapabilities: AgentCommand.capabilities
        case .queryMigrate: .object(AgentCommand.migration)
        case .queryName: .object([.optional("name", .string)])
        case .queryParameters:
            .object(MigrationParameter.allCases.filter { $0.initial != nil }.map { .required($0.rawValue, $0.type) })
        case .queryStatus:
            .object([
                .required("running", .boolean),
                .required(
                    "status",
                    .words(["finish-migrate", "inmigrate", "paused", "postmigrate", "prelaunch", "running"])
                ),
            ])
        case .queryThreads: .array(.object([.required("name", .string), .required("thread-id", .integer)]))
        // Results for clients of the same release, which the schema does not describe.
        case .report, .verify: .any
        case .cont, .destinationGone, .migrate, .migrateCancel, .migrateContinue, .migrateIncoming, .migratePause,
            .migrateRecover, .migrateStartPostcopy, .quit, .setCapabilities, .setParameters, .sourceGone, .stop:
            .nothing
        }
    }

    /// Whether a command only queries, and never waits.
    var isQuestion: Bool {
        switch self {
        case .queryCapabilities, .queryMigrate, .queryName, .queryParameters, .queryStatus, .queryThreads, .report: true
        case .cont, .destinationGone, .migrate, .migrateCancel, .migrateContinue, .migrateIncoming, .migratePause,
            .migrateRecover, .migrateStartPostcopy, .quit, .setCapabilities, .setParameters, .sourceGone, .stop,
            .verify:
            false
        }
    }

    /// Whether a command waits for another party: `cont` at a destination waits for the source.
    ///
    /// Such a command must not block the commands queued behind it.
    private var isPatient: Bool { self == .cont }

    private static let capabilities = QMPType.array(
        .object([
            .required("capability", .words(MigrationCapability.allCases.map(\.rawValue))),
            .required("state", .boolean),
        ])
    )

    /// The address of the peer: one of `uri` and `channels`.
    private static let address: [QMPMember] = [
        .optional("uri", .string),
        .optional(
            "channels",
            .array(.object([.required("channel-type", .words(["main"])), .required("addr", socketAddress)]))
        ),
    ]

    private static let socketAddress = QMPType.object([
        .required("transport", .words(["socket"])), .required("type", .words(["inet", "unix"])),
        .optional("host", .string), .optional("port", .string), .optional("path", .string),
        .optional("keep-alive", .boolean),
    ])

    /// What `query-migrate` returns.
    private static let migration: [QMPMember] = [
        .optional("status", .words(MigrationState.allCases.map(\.rawValue))),
        .optional("error-desc", .string), .optional("total-time", .integer), .optional("setup-time", .integer),
        .optional("downtime", .integer),
        .optional("ram", .object(memory)),
        .optional(
            "socket-address",
            .array(
                .object([.required("type", .words(["inet"])), .required("host", .string), .required("port", .string)])
            )
        ),
        .optional("pageferry-waiting-faults", .integer), .optional("pageferry-oldest-fault", .integer),
        .optional("postcopy-blocktime", .integer), .optional("postcopy-vcpu-blocktime", .array(.integer)),
        .optional("postcopy-latency", .integer), .optional("postcopy-latency-dist", .array(.integer)),
        .optional("postcopy-vcpu-latency", .array(.integer)), .optional("postcopy-non-vcpu-latency", .integer),
    ]

    private static let memory: [QMPMember] = [
        .required("transferred", .integer), .required("remaining", .integer), .required("total", .integer),
        .required("duplicate", .integer), .required("normal", .integer), .required("normal-bytes", .integer),
        .required("precopy-bytes", .integer), .required("postcopy-bytes", .integer),
        .required("page-size", .integer),
        // Only a source reports these.
        .optional("postcopy-requests", .integer), .optional("mbps", .number), .optional("pages-per-second", .integer),
        .optional("dirty-sync-count", .integer), .optional("dirty-sync-missed-zero-copy", .integer),
        .optional("multifd-bytes", .integer),
    ]
}
