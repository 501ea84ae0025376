import Glibc
@_spi(Controller) import Guest
import LandedGuest
import LinuxSystem
import LogLines
import OwnThread
import Synchronization
import Testing

@testable import Attachments

/// A process of version 3 that runs its workload, and what its agent does after each of its answers.
@Suite("A process that runs its workload", .ownThread, .timeLimit(.minutes(2)))
struct ConversationTests {
    /// What a test's process does with one request; nil continues with DONE.
    typealias Play = @Sendable (RunningProcess, RunningProcess.Request) throws -> Bool

    /// A process attached at a source's socket, whose requests are answered on a thread of its own.
    private final class Scene: Sendable {
        let site: Site
        let process: RunningProcess
        let workload: any Workload
        private let requests = Mutex<[RunningProcess.Request]>([])
        private let thread: ThreadGroup

        /// - Parameter play: returns whether it has answered a request itself.
        init(answerSeconds: UInt64 = 30, abilities: UInt16 = 0, pageCount: Int = 4, _ play: @escaping Play) async throws
        {
            site = try Site(answerSeconds: answerSeconds, takesRunning: true)
            process = try RunningProcess(at: site.path, pageCount: pageCount)
            try process.socket.send(process.handOff(abilities: abilities))
            workload = await site.landing.runningWorkload()
            thread = ThreadGroup()
            let process = process
            try thread.run("process") { [self] in
                while let message = try? process.next(), let request = message.request {
                    self.requests.withLock { $0.append(request) }
                    if request == .accepted || request == .free { continue }
                    guard (try? play(process, request)) == false else { continue }
                    guard (try? process.done(request)) != nil else { break }
                }
            }
        }

        /// The requests so far, without ACCEPTED.
        var seen: [RunningProcess.Request] { requests.withLock { $0.filter { $0 != .accepted } } }

        func end() {
            process.socket.shutdown()
            thread.join()
            site.end()
        }
    }

    /// Calls `body` on a thread that may block.
    private func reason(_ body: @escaping @Sendable () throws -> Void) async -> String? {
        do {
            try await apart(body)
            return nil
        } catch {
            return "\(error)"
        }
    }

    @Test func `is stopped, saved and released, each by one request, in order`() async throws {
        let large = [UInt8](repeating: 7, count: 3 << 20)
        let scene = try await Scene { process, request in
            guard request == .save else { return false }
            try process.device("clock", [[1, 2], [3]])
            try process.device("empty", [])
            try process.device(
                "large",
                [
                    Array(large.prefix(1 << 20)), Array(large.dropFirst(1 << 20).prefix(1 << 20)),
                    Array(large.suffix(1 << 20)),
                ]
            )
            return false
        }
        defer { scene.end() }
        let workload = scene.workload
        #expect(workload.description.kind == "attached")
        #expect(workload.description.name == "store")
        #expect(workload.activity.isRunning)
        try await apart { try workload.prepareToMove() }
        try await apart { try workload.stop() }
        #expect(!workload.activity.isRunning)
        let saved = try await apart { try workload.devices.save() }
        #expect(saved.map(\.name) == ["clock", "empty", "large"])
        #expect(saved[0].state == [1, 2, 3] && saved[1].state == [] && saved[2].state == large)
        try await apart { try workload.devices.depart() }
        try await apart { try workload.hasMovedAway() }
        #expect(scene.seen == [.prepare, .stop, .save, .depart, .release])
        #expect(await reason { _ = try workload.run(RunPermit(.inPlace())) } != nil)
    }

    @Test func `whose move ends after PREPARE is sent neither STOP nor RESUME`() async throws {
        let scene = try await Scene { _, _ in false }
        defer { scene.end() }
        let workload = scene.workload
        try await apart { try workload.prepareToMove() }
        #expect(try await apart { try workload.run(RunPermit(.inPlace())) } == .runs)
        #expect(workload.activity.isRunning)
        try await apart { try workload.stop() }
        #expect(scene.seen == [.prepare, .stop])
    }

    @Test(arguments: [false, true]) func `is resumed after STOP and after DEPART`(departs: Bool) async throws {
        let scene = try await Scene { _, _ in false }
        defer { scene.end() }
        let workload = scene.workload
        try await apart { try workload.stop() }
        if departs { try await apart { try workload.devices.depart() } }
        #expect(try await apart { try workload.run(RunPermit(.inPlace())) } == .runs)
        #expect(workload.activity.isRunning)
        // The process has not departed, so it is not sent RELEASE.
        try await apart { try workload.hasMovedAway() }
        #expect(scene.seen == (departs ? [.stop, .depart, .resume] : [.stop, .resume]))
    }

    @Test func `that its operator has stopped is saved again after a move that failed, without RESUME`() async throws {
        let scene = try await Scene { _, _ in false }
        defer { scene.end() }
        let workload = scene.workload
        #expect(workload.movesPaused)
        try await apart { try workload.stop() }
        for _ in 1...2 {
            _ = try await apart { try workload.devices.save() }
            try await apart { try workload.devices.depart() }
            #expect(workload.movesPaused)
        }
        try await apart { try workload.hasMovedAway() }
        #expect(scene.seen == [.stop, .save, .depart, .save, .depart, .release])
    }

    @Test func `continues to run after FAILED to PREPARE or STOP, with its reason`() async throws {
        let scene = try await Scene { process, request in
            try process.failed(request, "a transaction is open")
            return true
        }
        defer { scene.end() }
        let workload = scene.workload
        let name = "process \(getpid())"
        #expect(
            await reason { try workload.prepareToMove() } == "\(name) cannot prepare to move: a transaction is open"
        )
        #expect(await reason { try workload.stop() } == "\(name) cannot stop: a transaction is open")
        #expect(workload.activity.isRunning)
    }

    @Test func `is resumed again after it has failed to resume`() async throws {
        let tries = Atomic<Int>(0)
        let scene = try await Scene { process, request in
            guard request == .resume, tries.add(1, ordering: .relaxed).newValue == 1 else { return false }
            try process.failed(request, "no processor")
            return true
        }
        defer { scene.end() }
        let workload = scene.workload
        try await apart { try workload.stop() }
        #expect(
            await reason { _ = try workload.run(RunPermit(.inPlace())) }
                == "process \(getpid()) cannot resume: no processor"
        )
        #expect(!workload.activity.isRunning)
        #expect(try await apart { try workload.run(RunPermit(.inPlace())) } == .runs)
    }

    @Test func `that answers STOP too late is told to resume, and its late answer is dropped`() async throws {
        let seen = try Mailbox<RunningProcess.Request>()
        let scene = try await Scene(answerSeconds: 1) { process, request in
            seen.put(request)
            // The answer to STOP comes with the one to RESUME.
            if request == .stop { return true }
            if request == .resume { try process.done(.stop) }
            return false
        }
        defer { scene.end() }
        let workload = scene.workload
        let told = await reason { try workload.stop() }
        #expect(told == "process \(getpid()) did not stop within 1 s; see what it waits for; it was told to resume")
        #expect(workload.activity.isRunning)
        // The agent does not wait for the answer to this RESUME.
        #expect(seen.next(milliseconds: 5000) { $0 == .resume } != nil)
        #expect(scene.seen == [.stop, .resume])
    }

    @Test func `that answers neither STOP nor RESUME in time still counts as running, and is asked again`() async throws
    {
        let slow = Atomic<Bool>(true)
        let held = try Mailbox<RunningProcess.Request>()
        let scene = try await Scene(answerSeconds: 1) { process, request in
            guard slow.load(ordering: .acquiring) else { return false }
            held.put(request)
            return true
        }
        defer { scene.end() }
        let workload = scene.workload
        let told = try #require(await reason { try workload.stop() })
        #expect(told.contains("did not stop within 1 s") && told.contains("it was told to resume"))
        #expect(workload.activity.isRunning)
        // The workload counts as running here, so no other side may be permitted to start it.
        #expect(await reason { try workload.devices.depart() } != nil)
        #expect(await reason { _ = try workload.devices.save() } != nil)
        // Its answers come at last. The agent did not wait for the process to read RESUME.
        #expect(held.next(milliseconds: 5000) { $0 == .resume } != nil)
        slow.store(false, ordering: .releasing)
        try scene.process.done(.stop)
        try scene.process.done(.resume)
        try await apart { try workload.stop() }
        #expect(scene.seen == [.stop, .resume, .stop])
    }

    @Test(arguments: [RunningProcess.Request.prepare, .stop, .save, .depart])
    func `that hangs up before DEPART is answered permits no start elsewhere`(step: RunningProcess.Request) async throws
    {
        let scene = try await Scene { process, request in
            if request == step { process.socket.shutdown() }
            return request == step
        }
        defer { scene.end() }
        let workload = scene.workload
        let ended = LogLines()
        workload.onEnd { ended.add($0) }
        let told = await reason {
            try workload.prepareToMove()
            try workload.stop()
            _ = try workload.devices.save()
            try workload.devices.depart()
        }
        #expect(told != nil)
        #expect(ended.first(containing: "process \(getpid()) has hung up, and may run on") != nil)
        #expect(!workload.activity.isRunning)
        #expect(await reason { try workload.devices.depart() } != nil)
        let result = try? await apart { try workload.run(RunPermit(.inPlace())) }
        #expect(result != .runs)
    }

    @Test(arguments: [RunningProcess.Request.stop, .prepare, .depart])
    func `that answers twice, or for another request, is given up`(first: RunningProcess.Request) async throws {
        let scene = try await Scene { process, request in
            if request == .stop {
                try process.done(.stop)
                try process.done(first)
            } else {
                try process.done(request)
            }
            return true
        }
        defer { scene.end() }
        let workload = scene.workload
        try await apart { try workload.stop() }
        let told = try #require(await reason { _ = try workload.devices.save() })
        let word = "\(first)".uppercased()
        #expect(told.contains("process \(getpid()) answered \(word), which was not asked, or was answered before"))
        #expect(await reason { try workload.devices.depart() } != nil)
    }

    @Test(arguments: [
        ("announced 8589934592 bytes of state of the device 'huge'", 0), ("two states of the device 'twice'", 1),
        ("more state of the device 'short' than it announced", 2), ("a device without a name", 3),
        ("less of the device 'long' than it announced", 4), ("more state of the device '' than", 5),
        ("more than 64 devices", 6), ("which is no answer", 7), ("answered without saying which request", 8),
    ])
    func `whose device states break the protocol fails to save`(reason expected: String, number: Int) async throws {
        let scene = try await Scene { process, request in
            guard request == .save else { return false }
            switch number {
            case 0: try process.device("huge", announcing: 8 << 30, [])
            case 1: for _ in 0..<2 { try process.device("twice", [[1]]) }
            case 2: try process.device("short", announcing: 2, [[1], [2, 3]])
            case 3: try process.device("", [[1]])
            case 4: try process.device("long", announcing: 3, [[1]])
            case 5: try process.send(RunningProcess.Request.data.rawValue, [1])
            case 6: for device in 0..<65 { try process.device("d\(device)", []) }
            case 7: try process.send(RunningProcess.Request.stop.rawValue)
            default: try process.send(0x101)
            }
            return false
        }
        defer { scene.end() }
        let workload = scene.workload
        try await apart { try workload.stop() }
        let told = try #require(await reason { _ = try workload.devices.save() })
        #expect(told.contains(expected))
        // The process resumes, unless it has sent a message that is no answer: then nothing can be asked of it.
        let result = try await apart { try workload.run(RunPermit(.inPlace())) }
        #expect((result == .runs) == (number < 7))
    }

    @Test func `that writes to its memory after STOP is noticed before another side may start it`() async throws {
        let scene = try await Scene(pageCount: 1000) { _, _ in false }
        defer { scene.end() }
        let workload = scene.workload
        try await apart { try workload.stop() }
        _ = try await apart { try workload.devices.save() }
        scene.process.memory.page(999).storeBytes(of: 1, as: UInt8.self)
        let told = try #require(await reason { try workload.devices.depart() })
        #expect(told.contains("goes on running after it has answered STOP: page 999 of region 0 has changed"))
        #expect(scene.seen == [.stop, .save])
        #expect(try await apart { try workload.run(RunPermit(.inPlace())) } == .runs)
    }

    @Test func `says how many of its pages are wrong`() async throws {
        let scene = try await Scene(abilities: 1) { process, request in
            guard request == .verify else { return false }
            try process.done(.verify, process.number(UInt64(4)) + process.number(UInt64(1)))
            return true
        }
        defer { scene.end() }
        let workload = scene.workload
        #expect(workload.canVerify)
        try await apart { try workload.stop() }
        #expect(try await apart { try workload.verify() } == Verification(pagesChecked: 4, corrupt: 1))
    }

    @Test func `is alone at its socket`() async throws {
        let scene = try await Scene { _, _ in false }
        defer { scene.end() }
        let second = try RunningProcess(at: scene.site.path)
        try second.socket.send(second.handOff())
        let refusal = try #require(try second.next())
        #expect(refusal.request == .refused)
        #expect(String(decoding: refusal.content, as: UTF8.self).contains("only one process can attach"))
    }
}

/// Hand-offs of version 3 that are refused, each with its reason.
@Suite("A hand-off of version 3 is refused", .ownThread, .timeLimit(.minutes(2)))
struct Version3Tests {
    private func refusal(takesRunning: Bool = true, _ bytes: (RunningProcess) throws -> [UInt8]) throws -> String {
        let site = try Site(takesRunning: takesRunning)
        defer { site.end() }
        let process = try RunningProcess(at: site.path, pageCount: 1024)
        try process.socket.send(try bytes(process))
        let message = try #require(try process.next())
        #expect(message.request == .refused)
        return String(decoding: message.content, as: UTF8.self)
    }

    @Test func `at a destination, if the workload runs in the process`() throws {
        #expect(try refusal(takesRunning: false) { $0.handOff() }.contains("attach it to `pageferry source --attach`"))
    }

    @Test func `if a region is not mapped`() throws {
        let told = try refusal { process in
            let range = process.memory.range
            return RunningProcess.handOff([(range.address, range.byteCount, 0, 0), (1 << 40, 4096, 0, 0)])
        }
        #expect(told.contains("region 1 (address 1099511627776, 4096 bytes) is not mapped at address 1099511627776"))
    }

    @Test func `if a region is shared memory whose file was not handed over`() throws {
        let file = try MemoryFile(name: "guest", byteCount: 4096)
        let mapping = try Mapping(sharing: file)
        let told = try refusal { _ in
            RunningProcess.handOff([(UInt64(UInt(bitPattern: mapping.base)), 4096, 0, 0)])
        }
        #expect(told.contains("is shared memory; hand its memory file over, and name it"))
    }

    @Test func `if a region is registered with a userfaultfd`() throws {
        let userfaultfd = try Userfaultfd()
        let region = try MemoryRegion(name: "watched", pageCount: 1)
        try userfaultfd.register(region.range)
        let told = try refusal { _ in RunningProcess.handOff([(region.range.address, 4096, 0, 0)]) }
        #expect(told.contains("is registered with a userfaultfd"))
    }

    @Test func `if its pages have another size`() throws {
        let told = try refusal { process in
            let address = (process.memory.range.address + (2 << 20) - 1) & ~((2 << 20) - 1)
            return RunningProcess.handOff(pageSize: 2 << 20, [(address, 2 << 20, 0, 0)])
        }
        #expect(told.contains("has pages of 4096 bytes, not of 2097152"))
    }

    @Test func `if it names a file that did not come`() throws {
        let told = try refusal { process in
            RunningProcess.handOff([(process.memory.range.address, 4096, 1, 0)])
        }
        #expect(told.contains("the hand-off came with 0 descriptors instead of one"))
    }

    @Test func `if a field is wrong`() throws {
        #expect(try refusal { $0.handOff(role: 3) }.contains("has the role 3"))
        #expect(try refusal { $0.handOff(abilities: 4) }.contains("does not define"))
        #expect(try refusal { $0.handOff(name: "") }.contains("no name of 1 to 64 bytes"))
        #expect(try refusal { $0.handOff(name: String(repeating: "n", count: 65)) }.contains("a name of 65 bytes"))
        #expect(try refusal { Array($0.handOff().dropLast()) }.contains("and has 52 bytes"))
        let overlap = try refusal { process in
            let address = process.memory.range.address
            return RunningProcess.handOff([(address, 8192, 0, 0), (address + 4096, 4096, 0, 0)])
        }
        #expect(overlap.contains("two regions overlap"))
        let wraps = try refusal { _ in RunningProcess.handOff([(UInt64.max - 4095, 8192, 0, 0)]) }
        #expect(wraps.contains("is no range of pages"))
    }
}

/// A process of version 3 that waits for a workload.
@Suite("A process that waits, since version 3,", .ownThread, .timeLimit(.minutes(2)))
struct WaitingProcessTests {
    private func attach(to site: Site, name: String = "store") throws -> RunningProcess {
        let process = try RunningProcess(at: site.path)
        let userfaultfd = try Userfaultfd()
        try process.socket.send(process.handOff(role: 2, abilities: 1, name: name), with: userfaultfd)
        site.keep(process)
        guard try process.next()?.request == .accepted else { throw Missing(what: "ACCEPTED") }
        guard site.log.first(containing: "has attached") != nil else { throw Missing(what: "the process") }
        return process
    }

    private static func guest(_ name: String) -> GuestDescription {
        GuestDescription(
            kind: "attached",
            name: "attached",
            configuration: Array(name.utf8),
            regions: [GuestDescription.Region(name: "region0", pageCount: 4)]
        )
    }

    @Test func `loads states in pieces, runs, is told once that it is complete, and moves on`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try attach(to: site)
        #expect(site.landing.canVerify)
        // The memory is dropped: no page waits for its content.
        let workload = try site.landing.land(Self.guest("store")).workload
        let state = [UInt8](repeating: 9, count: 1 << 20 + 1)
        let agent = try JoinedThread(name: "agent") {
            do {
                _ = try workload.run(RunPermit(workload.devices.load([DeviceSet.Saved(name: "d", state: state)])))
                workload.memoryIsWhole()
                try workload.stop()
                _ = try workload.devices.save()
                try workload.devices.depart()
                try workload.hasMovedAway()
            } catch {
                Issue.record("\(error)")
            }
        }
        var kinds: [RunningProcess.Request?] = []
        var arrived: [UInt8] = []
        while kinds.last != .release, let message = try process.next() {
            kinds.append(message.request)
            if message.request == .device {
                #expect(message.content == process.number(UInt64(state.count)) + Array("d".utf8))
            }
            if message.request == .data { arrived += message.content }
            if let request = message.request, ![.device, .data].contains(request) { try process.done(request) }
        }
        agent.join()
        #expect(arrived == state)
        #expect(
            kinds == [.device, .data, .data, .load, .run, .complete, .stop, .save, .depart, .release]
        )
    }

    @Test func `is not used for a workload of another name`() throws {
        let site = try Site()
        defer { site.end() }
        _ = try attach(to: site)
        let error = try #require(throws: AttachmentError.self) { _ = try site.landing.land(Self.guest("cache")) }
        #expect(error.description.contains("waits for the workload 'store', and 'cache' would arrive"))
    }

    @Test func `and hangs up is noticed before anything stops`() throws {
        let site = try Site()
        defer { site.end() }
        try attach(to: site).socket.shutdown()
        let error = try #require(throws: AttachmentError.self) { _ = try site.landing.land(Self.guest("store")) }
        #expect(error.description.contains("has ended or hung up while it waited; start it again"))
    }

    @Test func `and whose migration fails is refused with that reason`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try attach(to: site)
        let workload = try site.landing.land(Self.guest("store")).workload
        let agent = try JoinedThread(name: "agent") { [workload] in
            #expect(throws: DeviceError.self) { _ = try workload.devices.load([]) }
        }
        #expect(try process.next()?.request == .load)
        try process.failed(.load, "no")
        agent.join()
        workload.settle(.abandoned)
        let refusal = try #require(try process.next())
        #expect(refusal.request == .refused)
    }
}
