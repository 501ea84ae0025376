import Switchover
import Testing

/// A row of the table of what fails: the fault, and how both sides end.
struct FailureRow: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let fault: Step
    /// The fault happens as soon as this is so and it can happen.
    let when: @Sendable (World) -> Bool
    /// Nil for a side that is dead.
    let source: MigrationState?
    let destination: MigrationState?
    let runsOn: String

    static let all: [FailureRow] = [
        row("save fails", .source(.ended(.save, succeeded: false)), ends: .failed, .failed, on: "source"),
        row("load fails", .destination(.ended(.loadDevices, succeeded: false)), ends: .failed, .failed, on: "source"),
        row("release fails", .source(.ended(.releaseLocks, succeeded: false)), ends: .failed, .failed, on: "source"),
        row(
            "too little memory",
            .destination(.ended(.prepareMemory, succeeded: false)),
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
            "hooks fail",
            .destination(.ended(.acquire, succeeded: false)),
            ends: .failed,
            .postcopyDevice,
            on: "source"
        ),
        row(
            "start fails",
            .destination(.ended(.start, succeeded: false)),
            ends: .failed,
            .postcopyDevice,
            on: "source"
        ),
        row("RUN is lost", .destination(.linkLost), { $0.runsSent == 1 }, ends: .postcopyPaused, .failed, on: "nobody"),
        row(
            "RUNNING is lost",
            .source(.linkLost),
            { $0.runsOnDestination },
            ends: .postcopyPaused,
            .postcopyPaused,
            on: "destination"
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
            "link breaks after RUNNING",
            .source(.linkLost),
            { $0.heardRunning },
            ends: .postcopyPaused,
            .postcopyPaused,
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
            "source dies after the commit point",
            .sourceDies,
            { $0.runsOnDestination },
            ends: nil,
            .postcopyPaused,
            on: "destination"
        ),
    ]

    private static func row(
        _ testDescription: String,
        _ fault: Step,
        _ when: @escaping @Sendable (World) -> Bool = { _ in true },
        ends source: MigrationState?,
        _ destination: MigrationState?,
        on runsOn: String
    ) -> FailureRow {
        FailureRow(
            testDescription: testDescription,
            fault: fault,
            when: when,
            source: source,
            destination: destination,
            runsOn: runsOn
        )
    }
}

@Suite("A migration ends as the table says")
struct FailureTableTests {
    /// Lets everything happen that nothing has to break for, with one fault, and returns the states of both sides.
    private func run(
        _ world: inout World,
        pages: Bool,
        fault: Step? = nil,
        when: (World) -> Bool = { _ in true }
    ) -> (source: [MigrationState], destination: [MigrationState]) {
        var source = [world.source.state]
        var destination = [world.destination.state]
        var fault = fault
        while true {
            let steps = world.steps()
            var step = steps.first { !$0.isFault && (pages || $0.step != .source(.allPagesSent)) }?.step
            if let due = fault, when(world), steps.contains(where: { $0.step == due }) {
                step = due
                fault = nil
            }
            guard let step else { break }
            _ = world.take(step, by: .shipped)
            if source.last != world.source.state { source.append(world.source.state) }
            if destination.last != world.destination.state { destination.append(world.destination.state) }
        }
        #expect(fault == nil, "the fault never happened")
        return (source, destination)
    }

    @Test("after each fault", arguments: FailureRow.all)
    func row(_ row: FailureRow) {
        var world = World(startsStopped: false, policy: .takeBack, conts: 0)
        _ = run(&world, pages: false, fault: row.fault, when: row.when)
        #expect((world.isSourceAlive ? world.source.state : nil) == row.source)
        #expect((world.isDestinationAlive ? world.destination.state : nil) == row.destination)
        let runsOn = world.runsOnSource ? "source" : world.runsOnDestination ? "destination" : "nobody"
        #expect(runsOn == row.runsOn)
    }

    @Test("with QEMU's states when nothing fails")
    func happyPath() {
        var world = World(startsStopped: false, policy: .takeBack, conts: 0)
        let states = run(&world, pages: true)
        #expect(
            states.source == [.none, .setup, .active, .device, .postcopyDevice, .postcopyActive, .completed]
        )
        #expect(states.destination == [.setup, .active, .postcopyDevice, .postcopyActive, .completed])
        #expect(
            MigrationState.allCases.map(\.rawValue).sorted() == [
                "active", "cancelled", "cancelling", "completed", "device", "failed", "none", "postcopy-active",
                "postcopy-device", "postcopy-paused", "postcopy-recover", "postcopy-recover-setup", "setup",
            ]
        )
    }
}
