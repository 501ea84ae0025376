import Firecracker
import FirecrackerRig
import Foundation
import OwnThread
import Testing

@Suite("A Firecracker, asked at its API socket,", .ownThread, .needsFirecracker, .timeLimit(.minutes(1)))
struct RequestTests {
    let site: Site
    let microVM: MicroVM

    init() throws {
        site = try Site()
        microVM = try MicroVM(in: site.folder)
    }

    @Test("boots, pauses, resumes, and reports each state")
    func runs() throws {
        let (api, guest) = (microVM.api, microVM.guest)
        #expect(try api.version() == "1.12.1")
        #expect(try api.instance().state == .notStarted)
        let machine = Machine(memoryMiB: 8)
        try microVM.boot(machine, in: site.folder)
        #expect(try api.instance().state == .running)
        #expect(try api.machine() == machine)
        try guest.perform(.stop)
        try api.pause()
        #expect(try api.instance().state == .paused)
        guest.send(.pass)
        try api.resume()
        try guest.wait(for: "pass")
    }

    @Test("makes a snapshot that continues from the same point once it is resumed")
    func restores() throws {
        try microVM.boot(Machine(memoryMiB: 8), in: site.folder)
        try microVM.guest.perform(.stop)
        let generation = try microVM.guest.perform(.pass)
        let snapshot = try microVM.snapshot(in: site.folder)
        microVM.end()
        let other = try MicroVM(in: site.folder)
        try other.restore(snapshot, from: .file(snapshot.memory), resume: false)
        #expect(try other.api.instance().state == .paused)
        try other.api.resume()
        #expect(try other.guest.perform(.pass) == generation + 1)
    }

    @Test("causes an error of one line that says what was refused, where and why")
    func refuses() throws {
        let refused = try #require(throws: FirecrackerError.self) { try microVM.api.pause() }
        #expect(refused.status == 400)
        let beginning = "cannot pause the microVM at \(microVM.api.socketPath): 400"
        #expect(refused.description.hasPrefix(beginning), "\(refused)")
        #expect(refused.description.contains("not supported before starting the microVM"), "\(refused)")
        #expect(!refused.description.contains("\n"))
    }

    @Test("reports why it cannot load a snapshot, and exits")
    func refusesSnapshot() throws {
        let api = microVM.api
        let nowhere = site.file("nowhere")
        let refused = try #require(throws: FirecrackerError.self) {
            try api.loadSnapshot(state: nowhere, memory: .file(nowhere), resume: false)
        }
        let beginning = "cannot load the snapshot \(nowhere) at \(api.socketPath): 400"
        #expect(refused.description.hasPrefix(beginning), "\(refused)")
        #expect(refused.description.contains("No such file or directory"), "\(refused)")
        #expect(try microVM.guest.waitForEnd() != 0)
    }

    @Test("times out if its process is stopped")
    func isStopped() throws {
        let api = FirecrackerAPI(socketPath: microVM.api.socketPath, timeout: .seconds(1))
        kill(microVM.guest.pid, SIGSTOP)
        let silent = try #require(throws: FirecrackerError.self) { try api.instance() }
        #expect(silent.description.contains("no answer within 1 s"), "\(silent)")
        microVM.end()
        let gone = try #require(throws: FirecrackerError.self) { try api.instance() }
        #expect(gone.description.contains("check that Firecracker runs there"), "\(gone)")
    }
}
