import FirecrackerRig
import Foundation
import HugePages
import LinuxSystem
import OwnThread
import Testing

/// Guests whose memory is not as Firecracker's is.
@Suite("A guest of another program", .ownThread, .timeLimit(.minutes(2)))
struct OddGuestTests {
    private func attach(_ site: RestoreSite, _ options: String...) throws -> (handler: Running, socket: String) {
        let socket = site.workspace.file("u.sock")
        let command = site.arguments(["--socket", socket] + options)
        return (try site.ready(try site.run(Executable.pageferry, command)), socket)
    }

    /// Starts the fixture with the snapshot of the site.
    private func guest(_ kind: String, at socket: String, _ site: RestoreSite) throws -> Running {
        try site.python("odd_guest.py", socket, site.snapshot.memory, kind)
    }

    /// The processor time of a process, in seconds.
    private func time(of process: Int32) throws -> Double {
        let stat = try ProcessFiles.text("/proc/\(process)/stat")
        let fields = stat[(stat.lastIndex(of: ")") ?? stat.startIndex)...].split(separator: " ")
        return fields[12...13].reduce(0) { $0 + (Double($1) ?? 0) / 100 }
    }

    @Test("keeps the pages that its memory file has, and gets the others", arguments: [[], ["--fill"]])
    func minorFaults(options: [String]) throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site, options.first ?? "--fill=4KiB")
        let guest = try guest("minor", at: socket, site)
        let line = try handler.errorLine(holding: options.isEmpty ? "has attached" : "has all of its pages")
        #expect(options.isEmpty || line.contains(" 4096 of 4096 pages are resident"), "\(line)")
        kill(guest.pid, SIGUSR1)
        let output = try guest.output(holding: "both checks") { $0.count { $0 == "\n" } == 2 }
        #expect(output == "0 pages are wrong\n0 pages are wrong\n")
        guest.end()
        let end = try handler.errorLine(holding: "stopped serving")
        // Every third page is one of these. Those that are requested to complete a block before they are touched count as
        // fetched ahead.
        #expect(!options.isEmpty || end.contains(/, and had ([3-9]\d\d|1[0-3]\d\d) already/), "\(end)")
    }

    @Test("of huge pages keeps those that its memory file has, and gets the others", arguments: [[], ["--fill"]])
    func hugeMinorFaults(options: [String]) throws {
        try HugePages.with(free: 8) {
            let site = try RestoreSite(serverOf: .standIn)
            defer { site.end() }
            let (handler, socket) = try attach(site, options.first ?? "--fill=4KiB")
            let guest = try guest("huge-minor", at: socket, site)
            _ = try handler.errorLine(holding: options.isEmpty ? "has attached" : "has all of its pages")
            kill(guest.pid, SIGUSR1)
            let output = try guest.output(holding: "both checks") { $0.count { $0 == "\n" } == 2 }
            #expect(output == "0 pages are wrong\n0 pages are wrong\n")
            guest.end()
        }
    }

    @Test("that faults again and again at the same page is reported with the address, and costs no processor time")
    func writeProtected() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site, "--fill=4KiB")
        let guest = try guest("protected", at: socket, site)
        _ = try guest.line(holding: "read 1")
        let line = try handler.errorLine(holding: "fault again, at address 0x", seconds: 10)
        let start = "process \(guest.pid) at unix:\(socket): a fault on page 0 of region 0 waits: its readers"
        #expect(line.contains(start), "\(line)")
        #expect(line.contains("woken 1000 times within a second"), "\(line)")
        #expect(line.contains("the process has write-protected the page"), "\(line)")
        let worker = try #require(try site.workers(of: handler).first)
        let before = try time(of: worker)
        sleep(2)
        #expect(try time(of: worker) - before < 0.4)
        kill(guest.pid, SIGUSR1)
        _ = try guest.line(holding: "written 7")
        #expect(handler.errorText.split(separator: "\n").count { $0.contains("fault again") } < 6)
    }

    @Test("that is refused and left has its missing pages blocked for as long as its memory lives")
    func left() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site, "--on-refused", "leave", "--allow-uid", "4242")
        let guest = try guest("gone", at: socket, site)
        let line = try handler.errorLine(holding: "refused process \(guest.pid)")
        #expect(line.hasSuffix("it waits for its memory for ever, as --on-refused says; end it"), "\(line)")
        _ = try guest.line(holding: "hung up")
        let keeper = try #require(try site.workers(of: handler).first)
        // The memory is kept beyond the handler's death.
        kill(handler.pid, SIGKILL)
        _ = try handler.finish()
        kill(guest.pid, SIGUSR1)
        try wait { try ProcessFiles.text("/proc/\(guest.pid)/wchan") == "handle_userfault" }
        #expect(!guest.outputText.contains("read"))
        guest.end()
        try wait { !FileManager.default.fileExists(atPath: "/proc/\(keeper)") }
    }

    @Test("that is refused beyond the number that can be left is killed")
    func manyLeft() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site, "--on-refused", "leave", "--allow-uid", "4242")
        let guests = try (0..<17).map { _ in
            let guest = try guest("gone", at: socket, site)
            _ = try handler.errorLine(holding: "refused process \(guest.pid)")
            return guest
        }
        let line = try handler.errorLine(holding: "refused process \(guests[16].pid)")
        #expect(line.contains("killed, since its missing pages would read as zeros: 16 refused guests"), "\(line)")
        #expect(try guests[16].finish().status == SIGKILL)
        #expect(try site.workers(of: handler).count == 16)
        for guest in guests { guest.end() }
        try wait { try site.workers(of: handler).isEmpty }
    }

    private func wait(until isDone: () throws -> Bool) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try !isDone() {
            guard Date() < deadline else { throw TestFailure("did not come true within 30 s") }
            usleep(5000)
        }
    }
}
