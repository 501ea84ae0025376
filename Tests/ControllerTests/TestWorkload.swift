import Glibc
import Guest
import LinuxSystem
import Synchronization
import Telemetry

/// Memory of some pages with content, two devices, and a thread that counts operations while it runs.
final class TestWorkload: Workload {
    let description: GuestDescription
    let regions: [MemoryRegion]
    var sourceMemory: [SourceRegion]? { copies.withLock(\.self) ?? regions.map { .mapped($0) } }
    /// Memory with the same content that a source sends instead; nil if there is none.
    let copies = Mutex<[SourceRegion]?>(nil)
    let disk: TestDevice
    let clock: TestDevice
    private let journal: Journal
    private let state = Mutex(WorkloadActivity())
    private let stopping = Atomic<Bool>(false)
    private let thread = Mutex<JoinedThread?>(nil)
    private let host: String
    private let end = Mutex<(@Sendable (String) -> Void)?>(nil)
    /// Whether a run executes nothing and fails with a reason.
    let failsToRun = Atomic<Bool>(false)
    /// Whether a run ends the workload before the start is finished.
    let diesInRun = Atomic<Bool>(false)
    /// Whether the workload can continue without its agent, as a workload in another process does.
    let livesOn = Atomic<Bool>(false)
    /// Whether the workload can move only while it runs.
    let movesOnlyRunning = Atomic<Bool>(false)
    /// Whether a run waits at its gate before it begins.
    let holdsRun = Atomic<Bool>(false)
    let runGate: Gate
    /// Whether a preparation for a move waits at its gate.
    let holdsPreparation = Atomic<Bool>(false)
    let preparationGate: Gate
    /// Whether the workload was told that it runs elsewhere for good.
    let isReleased = Atomic<Bool>(false)
    /// Whether the workload touches no page while it runs.
    let leavesMemoryAlone = Atomic<Bool>(false)

    init(host: String, description: GuestDescription, regions: [MemoryRegion], journal: Journal) throws {
        self.host = host
        self.description = description
        self.regions = regions
        self.journal = journal
        runGate = try Gate()
        preparationGate = try Gate()
        disk = try TestDevice(name: "disk", host: host, journal: journal)
        clock = try TestDevice(name: "clock", host: host, journal: journal)
    }

    /// Makes a workload with content, in which every fourth page holds zeros.
    static func filled(journal: Journal, pageCounts: [Int] = [600, 40]) throws -> TestWorkload {
        let shapes = pageCounts.enumerated().map { GuestDescription.Region(name: "ram\($0)", pageCount: $1) }
        let regions = try shapes.map { try MemoryRegion(name: $0.name, pageCount: $0.pageCount) }
        for (index, region) in regions.enumerated() {
            for page in 0..<region.pageCount where page % 4 != 0 {
                for offset in stride(from: 0, to: region.pageSize, by: 8) {
                    let value = UInt64(index) << 48 | UInt64(page) << 16 | UInt64(offset) | 1
                    region.page(page).storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
                }
            }
        }
        let description = GuestDescription(kind: "test", name: "test", configuration: [1, 2], regions: shapes)
        let workload = try TestWorkload(host: "source", description: description, regions: regions, journal: journal)
        workload.disk.set(state: [7, 7, 7])
        workload.clock.set(state: [UInt8](repeating: 5, count: 3 << 20))
        return workload
    }

    var devices: DeviceSet { DeviceSet([disk, clock]) }

    func prepareToMove() {
        if holdsPreparation.load(ordering: .acquiring) { preparationGate.pass() }
    }

    func hasMovedAway() { isReleased.store(true, ordering: .releasing) }

    func run(_ permit: consuming RunPermit) throws -> StartResult {
        guard !activity.isRunning else { return .runs }
        guard !failsToRun.load(ordering: .acquiring) else { throw DeviceError(device: "processor", reason: "is hot") }
        if holdsRun.load(ordering: .acquiring) {
            runGate.pass()
            guard !failsToRun.load(ordering: .acquiring) else {
                throw DeviceError(device: "processor", reason: "became hot")
            }
        }
        if diesInRun.load(ordering: .acquiring) {
            failsToRun.store(true, ordering: .releasing)
            return .ended(reason: "its processor burned")
        }
        journal.begin(host)
        stopping.store(false, ordering: .releasing)
        state.withLock { $0.isRunning = true }
        var thread: JoinedThread? = try JoinedThread(name: "test-workload") { [self] in
            var page = 0
            while !stopping.load(ordering: .acquiring) {
                // Many test workloads run at once on few cores.
                usleep(500)
                if leavesMemoryAlone.load(ordering: .acquiring) { continue }
                let region = regions[page % regions.count]
                _ = region.page(page % region.pageCount).load(as: UInt8.self)
                page += 1
                state.withLock {
                    $0.operations += 1
                    $0.lastOperation = MonotonicClock.now()
                }
            }
        }
        self.thread.withLock { swap(&thread, &$0) }
        return .runs
    }

    func stop() throws {
        stopping.store(true, ordering: .releasing)
        var thread: JoinedThread? = nil
        self.thread.withLock { swap(&thread, &$0) }
        thread = nil
        state.withLock { $0.isRunning = false }
        journal.end(host)
    }

    func onEnd(_ tell: @escaping @Sendable (String) -> Void) { end.withLock { $0 = tell } }

    /// Ends the workload as if by itself.
    func end(_ reason: String) throws {
        if activity.isRunning { try stop() }
        failsToRun.store(true, ordering: .releasing)
        end.withLock(\.self)?(reason)
    }

    var movesPaused: Bool { !movesOnlyRunning.load(ordering: .acquiring) }
    var endsWithAgent: Bool { !livesOn.load(ordering: .acquiring) }
    var activity: WorkloadActivity { state.withLock(\.self) }
    var stalls: [LatencyRecorder] { [] }
    var blockedNanoseconds: UInt64? { nil }

    func verify() -> Verification? {
        Verification(pagesChecked: regions.reduce(0) { $0 + $1.pageCount }, corrupt: 0)
    }
}

/// A device that a test can make fail or wait.
final class TestDevice: Device {
    /// The behaviour of a device's operation.
    enum Behaviour: Sendable {
        case works
        case fails
        /// Waits until the test opens the gate.
        case waits
    }

    struct Behaviours: Sendable {
        var save = Behaviour.works
        var load = Behaviour.works
        var acquire = Behaviour.works
        var release = Behaviour.works
    }

    let name: String
    let gate: Gate
    private let host: String
    private let journal: Journal
    private let state = Mutex<[UInt8]>([])
    private let behaviours = Mutex(Behaviours())
    /// The state that is sent ahead: none, a state, or a failure to save it.
    private let ahead = Mutex<[UInt8]??>(nil)

    init(name: String, host: String, journal: Journal) throws {
        self.name = name
        self.host = host
        self.journal = journal
        gate = try Gate()
    }

    func set(state: [UInt8]) { self.state.withLock { $0 = state } }
    var savedState: [UInt8] { state.withLock(\.self) }
    func behave(_ change: (inout Behaviours) -> Void) { behaviours.withLock { change(&$0) } }

    /// Sets the state that is sent ahead; with nil, the device fails to save it.
    func goAhead(with state: [UInt8]?) { ahead.withLock { $0 = .some(state) } }

    func saveAhead() throws -> [UInt8]? {
        guard let wanted = ahead.withLock(\.self) else { return nil }
        guard let state = wanted else { throw DeviceError(device: name, reason: "cannot save while it runs") }
        journal.note("\(host) save ahead \(name)")
        return state
    }

    func save() throws -> [UInt8] {
        try act("save", behaviours.withLock(\.save))
        return state.withLock(\.self)
    }

    func load(_ state: [UInt8]) throws {
        try act("load", behaviours.withLock(\.load))
        self.state.withLock { $0 = state }
    }

    func acquire() throws { try act("acquire", behaviours.withLock(\.acquire)) }

    func release() throws { try act("release", behaviours.withLock(\.release)) }

    private func act(_ what: String, _ behaviour: Behaviour) throws {
        switch behaviour {
        case .works: break
        case .fails: throw DeviceError(device: name, reason: "cannot \(what) today")
        case .waits: gate.pass()
        }
        journal.note("\(host) \(what) \(name)")
    }
}

/// A gate at which a thread waits until the test opens it, and that tells the test when a thread has arrived.
final class Gate: Sendable {
    private let arrived: EventDescriptor
    private let opened: EventDescriptor

    init() throws {
        arrived = try EventDescriptor()
        opened = try EventDescriptor()
    }

    func pass() {
        arrived.raise()
        opened.wait()
    }

    func open() { opened.raise() }
    var hasVisitor: Bool { arrived.wait(seconds: 0) }
}
