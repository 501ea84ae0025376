import Glibc
@_spi(Controller) import Guest
import LandedGuest
import LinuxSystem
import LogLines
import OwnThread
import TestProcess
import Testing

@testable import Attachments

/// A process that receives an order and does not answer it.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct AnswerLimitTests {
    /// The outcome of `run` for a process that executes these Python statements after it has received RUN.
    private func end(_ statements: String) throws -> (result: StartResult, process: Int32, status: Int32?) {
        let site = try Site(answerSeconds: 1)
        defer { site.end() }
        let process = try Python.start(Python.attaching(at: site.path) + statements)
        guard site.log.first(containing: "has attached") != nil else { throw Missing(what: "the process") }
        let workload = try site.workload()
        let result = try workload.run(RunPermit(.inPlace()))
        #expect(!workload.activity.isRunning)
        return (result, process.pid, process.wait()?.status)
    }

    @Test(arguments: [0, 4, 8])
    func `a LOAD that gets no answer in time, or only a part of one, is a failed load`(bytes: Int) throws {
        let site = try Site(answerSeconds: 1)
        defer { site.end() }
        let process = try site.attach()
        // A part of an answer of 12 bytes.
        try process.socket.send(Array([0x02, 0x01, 0, 0, 4, 0, 0, 0][..<bytes]))
        let workload = try site.workload()
        let error = try #require(throws: DeviceError.self) { _ = try workload.devices.load([]) }
        #expect(
            error.reason == "process \(getpid()) did not load its devices within 1 s; see what it waits for"
        )
        #expect(try process.nextOrder() == .load)
    }

    @Test func `device states that a process does not read in time are a failed load`() throws {
        let site = try Site(answerSeconds: 1)
        defer { site.end() }
        let process = try site.attach()
        let workload = try site.workload()
        let state = DeviceSet.Saved(name: "large", state: [UInt8](repeating: 7, count: 16 << 20))
        let error = try #require(throws: DeviceError.self) { _ = try workload.devices.load([state]) }
        #expect(error.reason.contains("did not load its devices within 1 s"))
        process.socket.shutdown()
    }

    @Test(arguments: [1, 16 << 20])
    func `a process that ends while it is sent its states is named in the failed load`(bytes: Int) throws {
        let site = try Site()
        defer { site.end() }
        let process = try Python.start(Python.attaching(at: site.path) + "os._exit(0)")
        guard site.log.first(containing: "has attached") != nil else { throw Missing(what: "the process") }
        let workload = try site.workload()
        let state = DeviceSet.Saved(name: "state", state: [UInt8](repeating: 7, count: bytes))
        let error = try #require(throws: DeviceError.self) { _ = try workload.devices.load([state]) }
        #expect(error.reason == "process \(process.pid) has ended")
    }

    @Test func `a process that does not answer RUN in time counts as started and as ended, and is killed`() throws {
        for answer in ["", "s.send(struct.pack('<I', 0x101)); "] {
            let (result, process, status) = try end(answer + "import signal; signal.pause()")
            #expect(
                result
                    == .ended(
                        reason:
                            "process \(process) did not answer RUN within 1 s, and was killed, so that it does not run "
                            + "later"
                    )
            )
            #expect(status == SIGKILL)
        }
    }

    @Test func `a process that answers RUN with nonsense counts as started and as ended, and is killed`() throws {
        let (result, process, status) = try end("s.send(struct.pack('<II', 7, 0)); import signal; signal.pause()")
        let what = "process \(process) answered with a message of kind 7 and 0 bytes"
        #expect(result == .ended(reason: "\(what), and was killed, so that it does not run later"))
        #expect(status == SIGKILL)
    }

    @Test func `a process that hangs up at RUN counts as started and as ended, and is left alone`() throws {
        let (result, process, status) = try end("s.close(); import time; time.sleep(1)")
        #expect(result == .ended(reason: "process \(process) has hung up, and may run on"))
        #expect(status == 0)
    }
}
