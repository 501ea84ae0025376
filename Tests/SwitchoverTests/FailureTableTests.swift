import Identity
import Switchover
import Testing

/// A row of the failure table: the fault, and the final states of both sides.
struct FailureRow: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let fault: Step
    /// The condition under which the fault strikes as soon as it can.
    let when: @Sendable (World) -> Bool
    /// The source's final state; nil if the source is dead.
    let source: MigrationState?
    let destination: MigrationState?
    let runsOn: String
    let setting: World.Setting

    static let all: [FailureRow] = [
        row("save fails", .source(.ended(.save, .failure)), ends: .failed, .failed, on: "source"),
        row("load fails", .destination(.ended(.loadDevices, .failure)), ends: .failed, .failed, on: "source"),
        row("release fails", .source(.ended(.releaseLocks, .failure)), ends: .failed, .cancelled, on: "source"),
        row(
            "too little memory",
            .destination(.ended(.prepareMemory, .failure)),
            ends: .failed,
            .setup,
            on: "source"
        ),
        row(
            "link breaks in active",
            .source(.linkLost),
            { $0.source.state == .active },
            ends: .failed,
            .failed,
            on: "source"
        ),
        row(
            "link breaks while stopping",
            .source(.linkLost),
            { $0.source.state == .active && !$0.source.isWorkloadHere },
            ends: .failed,
            .failed,
            on: "source"
        ),
        row(
            "link breaks while saving",
            .source(.linkLost),
            { $0.source.state == .device },
            ends: .failed,
            .failed,
            on: "source"
        ),
        row("link breaks before RUN", .source(.linkLost), { $0.heardPong }, ends: .failed, .failed, on: "source"),
        row(
            "destination dies before RUN",
            .destinationDies,
            { $0.source.state == .postcopyDevice },
            ends: .failed,
            nil,
            on: "source"
        ),
        row(
            "the source's process hangs up while it runs",
            .processHangsUp,
            { $0.source.state == .setup },
            ends: .failed,
            .failed,
            on: "source",
            attached
        ),
        row(
            "the source's process hangs up before DEPART",
            .processHangsUp,
            { $0.heardPong && !$0.hasDeparted },
            ends: .failed,
            .cancelled,
            on: "source",
            attached
        ),
        row(
            "the source's process hangs up after DEPART",
            .processHangsUp,
            { $0.hasDeparted && !$0.runsOnDestination },
            ends: .completed,
            .completed,
            on: "destination",
            attached
        ),
        row(
            "the agent of the source's process dies before DEPART",
            .sourceDies,
            { $0.heardPong && !$0.hasDeparted },
            ends: nil,
            .postcopyDevice,
            on: "source",
            attached
        ),
        row(
            "the agent of the source's process dies after RUN, before the start",
            .sourceDies,
            { $0.hasDeparted && $0.runsSent == 1 && !$0.runsOnDestination },
            ends: nil,
            .postcopyPaused,
            on: "destination",
            attached
        ),
        row(
            "hooks fail",
            .destination(.ended(.acquire, .failure)),
            ends: .failed,
            .postcopyDevice,
            on: "source"
        ),
        row(
            "start fails",
            .destination(.ended(.start, .failure)),
            ends: .failed,
            .postcopyDevice,
            on: "source"
        ),
        row(
            "RUN is lost",
            .destination(.linkLost),
            { $0.runsSent == 1 },
            ends: .completed,
            .completed,
            on: "destination"
        ),
        row(
            "RUN is lost, and no link can be made",
            .destination(.linkLost),
            { $0.runsSent == 1 },
            ends: .postcopyPaused,
            .postcopyDevice,
            on: "nobody",
            unlinked
        ),
        row(
            "RUN is lost, with a lease",
            .destination(.linkLost),
            { $0.runsSent == 1 },
            ends: .failed,
            .failed,
            on: "source",
            leased
        ),
        row(
            "RUNNING is lost",
            .source(.linkLost),
            { $0.runsOnDestination },
            ends: .completed,
            .completed,
            on: "destination"
        ),
        row(
            "RUNNING is lost, and no link can be made",
            .source(.linkLost),
            { $0.runsOnDestination },
            ends: .postcopyPaused,
            .postcopyPaused,
            on: "destination",
            unlinked
        ),
        row(
            "RUNNING is lost, with a lease",
            .source(.linkLost),
            { $0.runsOnDestination },
            ends: .completed,
            .completed,
            on: "destination",
            leased
        ),
        row(
            "destination dies before its commit point",
            .destinationDies,
            { $0.runsSent == 1 },
            ends: .postcopyPaused,
            nil,
            on: "nobody"
        ),
        row(
            "destination dies before its commit point, with a lease",
            .destinationDies,
            { $0.runsSent == 1 },
            ends: .failed,
            nil,
            on: "source",
            leased
        ),
        row(
            "link breaks after RUNNING",
            .source(.linkLost),
            { $0.heardRunning },
            ends: .completed,
            .completed,
            on: "destination"
        ),
        row(
            "destination dies after its commit point",
            .destinationDies,
            { $0.runsOnDestination },
            ends: .postcopyPaused,
            nil,
            on: "nobody"
        ),
        row(
            "destination dies after its commit point, with a lease",
            .destinationDies,
            { $0.runsOnDestination },
            ends: .postcopyPaused,
            nil,
            on: "nobody",
            leased
        ),
        row(
            "source dies after the commit point",
            .sourceDies,
            { $0.runsOnDestination },
            ends: nil,
            .postcopyPaused,
            on: "destination"
        ),
        row(
            "cancel in active",
            .source(.cancel),
            { $0.source.state == .active },
            ends: .cancelled,
            .failed,
            on: "source",
            cancels
        ),
        row(
            "cancel while stopping",
            .source(.cancel),
            { $0.source.state == .device },
            ends: .cancelled,
            .failed,
            on: "source",
            cancels
        ),
        row(
            "cancel before PONG",
            .source(.cancel),
            { $0.source.state == .postcopyDevice },
            ends: .cancelled,
            .cancelled,
            on: "source",
            cancels
        ),
        row(
            "cancel between RUN and the commit point",
            .source(.cancel),
            { $0.runsSent == 1 },
            ends: .cancelled,
            .cancelled,
            on: "source",
            cancels
        ),
        row(
            "cancel while the lease is written",
            .source(.cancel),
            { world in world.destinationOperations.contains { if case .commitLease = $0 { true } else { false } } },
            ends: .cancelled,
            .cancelled,
            on: "source",
            World.Setting(usesLease: true, conts: 0, operatorSpeaks: false)
        ),
        row(
            "cancel after the commit point",
            .source(.cancel),
            { $0.runsOnDestination },
            ends: .completed,
            .completed,
            on: "destination",
            cancels
        ),
        row(
            "the lease's store cannot be reached by the destination",
            .destination(.ended(.commitLease(RunGrant(token: RunToken(1), epoch: 1)), .unreachable)),
            ends: .failed,
            .postcopyDevice,
            on: "source",
            leased
        ),
        row(
            "the start fails after the lease was won",
            .destination(.ended(.start, .failure)),
            ends: .failed,
            .postcopyDevice,
            on: "source",
            leased
        ),
    ]

    private static let unlinked = World.Setting(conts: 0, cancels: 0, relinks: 0, operatorSpeaks: false)
    private static let leased = World.Setting(usesLease: true, conts: 0, cancels: 0, operatorSpeaks: false)
    private static let cancels = World.Setting(conts: 0, operatorSpeaks: false)

    private static func row(
        _ testDescription: String,
        _ fault: Step,
        _ when: @escaping @Sendable (World) -> Bool = { _ in true },
        ends source: MigrationState?,
        _ destination: MigrationState?,
        on runsOn: String,
        _ setting: World.Setting = World.Setting(conts: 0, cancels: 0, operatorSpeaks: false)
    ) -> FailureRow {
        FailureRow(
            testDescription: testDescription,
            fault: fault,
            when: when,
            source: source,
            destination: destination,
            runsOn: runsOn,
            setting: setting
        )
    }
}

/// The setting of a source whose workload is in a process that attaches.
private let attached = World.Setting(conts: 0, cancels: 0, operatorSpeaks: false, attaches: true)

extension Step {
    fileprivate var isMessage: Bool {
        switch self {
        case .source(.received), .destination(.received): true
        case .source, .destination, .sourceDies, .destinationDies, .processHangsUp, .third, .strayLands: false
        }
    }
}

@Suite("A migration ends as the table says")
struct FailureTableTests {
    /// Takes every step that is not a fault, and one fault, and returns the states of both sides.
    private func run(
        _ world: inout World,
        pages: Bool,
        fault: Step? = nil,
        when: (World) -> Bool = { _ in true }
    ) -> (source: [MigrationState], destination: [MigrationState]) {
        var source = [world.source.state]
        var destination = [world.destination.state]
        var fault = fault
        for _ in 0..<200 {
            let steps = world.steps()
            let due = steps.filter { !$0.isFault && (pages || $0.step != .source(.allPagesSent)) }.map(\.step)
            // Messages are faster than operations.
            var step = due.first(where: \.isMessage) ?? due.first
            if let due = fault, when(world), steps.contains(where: { $0.step == due }) {
                step = due
                fault = nil
            }
            guard let step else {
                #expect(fault == nil, "the fault never happened")
                return (source, destination)
            }
            _ = world.take(step, by: .shipped)
            if source.last != world.source.state { source.append(world.source.state) }
            if destination.last != world.destination.state { destination.append(world.destination.state) }
        }
        Issue.record("the migration never comes to rest: \(source), \(destination)")
        return (source, destination)
    }

    @Test("after each fault", arguments: FailureRow.all)
    func row(_ row: FailureRow) {
        var world = World(row.setting)
        _ = run(&world, pages: row.source == .completed, fault: row.fault, when: row.when)
        #expect((world.isSourceAlive ? world.source.state : nil) == row.source)
        #expect((world.isDestinationAlive ? world.destination.state : nil) == row.destination)
        let runsOn = world.runsOnSource ? "source" : world.runsOnDestination ? "destination" : "nobody"
        #expect(runsOn == row.runsOn)
    }

    @Test("with QEMU's states when nothing fails")
    func happyPath() {
        var world = World(World.Setting(conts: 0, cancels: 0))
        let states = run(&world, pages: true)
        #expect(
            states.source == [.none, .setup, .active, .device, .postcopyDevice, .postcopyActive, .completed]
        )
        #expect(states.destination == [.setup, .active, .postcopyDevice, .postcopyActive, .completed])
        #expect(
            MigrationState.allCases.map(\.rawValue).sorted() == [
                "active", "cancelled", "cancelling", "completed", "device", "failed", "none", "postcopy-active",
                "postcopy-device", "postcopy-paused", "postcopy-recover", "postcopy-recover-setup", "pre-switchover",
                "setup",
            ]
        )
    }
}
