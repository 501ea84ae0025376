import FirecrackerRig
import Foundation
import OwnThread
import Testing

/// Guests of a snapshot whose memory file changes, is replaced, or only looks as if it were.
@Suite("A guest of a snapshot", .ownThread, .timeLimit(.minutes(2)))
struct ChangedSnapshotTests {
    /// A page of a memory of 16 MiB that no digest of a few pages covers.
    private static let uncovered = 261

    @Test(
        "whose file is touched sees nothing of it, also after a restart of the server",
        arguments: GuestKind.available
    )
    func touched(kind: GuestKind) throws {
        let site = try RestoreSite(kind, "--on-lost", "kill")
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        try #require(utimes(site.snapshot.memory, nil) == 0)
        #expect(try guest.perform(.inflate) == 256)
        guest.send(.dispersed)
        _ = try guest.perform(.workingSet)
        let other = try site.restore()
        _ = try other.perform(.workingSet)
        _ = try site.server?.errorLine(holding: "have changed, and its content is proved to be the same")
        _ = try site.handler.errorLine(holding: "process \(guest.pid) at unix:\(site.socket): the file of its snapshot")
        try site.restartServer()
        #expect(try guest.perform(.pass) == 1)
        #expect(try other.perform(.pass) == 1)
    }

    @Test(
        "whose file was changed is killed or held at once, though the file has its old modification time",
        arguments: ["kill", "hold"]
    )
    func changed(policy: String) throws {
        let site = try RestoreSite(.standIn, "--on-lost", policy)
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        let times = try site.times(of: site.snapshot.memory)
        try site.change(site.snapshot.memory, page: Self.uncovered)
        try #require(utimensat(AT_FDCWD, site.snapshot.memory, times, 0) == 0)
        guest.send(.pass)
        let line = try site.handler.errorLine(holding: policy == "kill" ? "it is killed" : "it waits until")
        #expect(line.contains("cannot get the page at byte "), "\(line)")
        #expect(line.contains("the server refuses: \(site.snapshot.memory) was modified"), "\(line)")
        let server = try #require(site.server).finish()
        #expect(server.status == 3 && server.errors.contains("was modified; serve a file that nobody changes"))
        if policy == "kill" { #expect(try guest.waitForEnd() == SIGKILL) }
    }

    @Test("whose file was truncated is killed at once, and its server exits in order")
    func truncated() throws {
        let site = try RestoreSite(.standIn, "--on-lost", "kill")
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        try #require(truncate(site.snapshot.memory, 1 << 20) == 0)
        guest.send(.pass)
        let line = try site.handler.errorLine(holding: "it is killed")
        #expect(line.contains("has changed its size from 16777216 to 1048576 bytes"), "\(line)")
        #expect(try guest.waitForEnd() == SIGKILL)
        #expect(try #require(site.server).finish().status == 3)
    }

    @Test("whose file is replaced gets the pages of its own, and none of the new file after a restart of the server")
    func replaced() throws {
        let site = try RestoreSite(.standIn, "--on-lost", "hold")
        defer { site.end() }
        let (first, second) = (try site.restore(), try site.restore())
        for guest in [first, second] { _ = try guest.perform(.workingSet) }
        let other = try site.copyOfMemory(changedAtPage: Self.uncovered)
        try #require(rename(other, site.snapshot.memory) == 0)
        #expect(try first.perform(.pass) == 1)
        site.endServer()
        second.send(.pass)
        try site.startServer()
        let line = try site.handler.errorLine(holding: "it waits until")
        #expect(line.contains("process \(second.pid) at "), "\(line)")
        #expect(line.contains("does not prove that it serves the same file as before"), "\(line)")
        // A guest that is restored from the new file is served.
        let other3 = try site.restore()
        _ = try other3.perform(.workingSet)
    }

    @Test("that was proved fully takes a copy of the file, and no file that differs in one page")
    func provedFully() throws {
        let site = try RestoreSite(.standIn, "--on-lost", "hold")
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        // The same file, proved fully from here on.
        try site.restartServer(nil, "--full-digest")
        _ = try site.handler.errorLine(holding: "was reconnected to")
        let (same, other) = (try site.copyOfMemory(), try site.copyOfMemory(changedAtPage: Self.uncovered))
        try site.restartServer(other, "--full-digest")
        guest.send(.pass)
        _ = try site.handler.errorLine(holding: "serves another file than before; it waits")
        try site.restartServer(same, "--full-digest")
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
    }
}

extension RestoreSite {
    /// Makes a copy of the memory file, with its modification time and, unless `page` is nil, one changed page.
    func copyOfMemory(changedAtPage page: Int? = nil) throws -> String {
        let copy = workspace.file("copy-\(UInt16.random(in: 0...UInt16.max))")
        try FileManager.default.copyItem(atPath: snapshot.memory, toPath: copy)
        if let page { try change(copy, page: page) }
        try #require(utimensat(AT_FDCWD, copy, times(of: snapshot.memory), 0) == 0)
        return copy
    }

    /// Changes the first bytes of a page of a file.
    func change(_ path: String, page: Int) throws {
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try handle.seek(toOffset: UInt64(page * 4096))
        let bytes = try handle.read(upToCount: 8) ?? Data()
        try handle.seek(toOffset: UInt64(page * 4096))
        try handle.write(contentsOf: bytes.map { ~$0 })
        try handle.close()
    }

    /// The times of a file that utimensat(2) can set.
    func times(of path: String) throws -> [timespec] {
        var status = stat()
        try #require(stat(path, &status) == 0)
        return [status.st_atim, status.st_mtim]
    }

    /// Ends the server, and starts another one at its address.
    func restartServer(_ file: String? = nil, _ options: String...) throws {
        endServer()
        try startServer(file, options)
    }
}
