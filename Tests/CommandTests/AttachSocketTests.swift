import FirecrackerRig
import Foundation
import OwnThread
import Testing

/// The sockets at which `attach` takes guests.
@Suite("A socket of attach", .ownThread, .timeLimit(.minutes(2)))
struct AttachSocketTests {
    @Test("can be one of several, and a guest's lines name the one at which it attached")
    func several() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let paths = ["one", "two", "three"].map { site.workspace.file("\($0).sock") }
        let handler = try site.attach("--socket", paths[0], "--socket", paths[1], "--socket", paths[2])
        #expect(try handler.line(holding: "ready") == "ready " + paths.map { "unix:\($0)" }.joined(separator: " "))
        for path in paths {
            let guest = try site.restore(at: path)
            #expect(try guest.perform(.pass) == 1)
            _ = try handler.errorLine(holding: "process \(guest.pid) at unix:\(path) has attached")
            guest.end()
        }
        kill(handler.pid, SIGTERM)
        #expect(try handler.finish().status == 0)
        for path in paths { #expect(!FileManager.default.fileExists(atPath: path)) }
    }

    @Test("that cannot be made leaves no other behind")
    func oneFails() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (good, bad) = (site.workspace.file("good.sock"), site.workspace.file("missing/bad.sock"))
        let handler = try Executable.run(Executable.pageferry, site.arguments(["--socket", good, "--socket", bad]))
        #expect(handler.status == 1 && handler.output.isEmpty, "\(handler)")
        #expect(handler.errors.contains("cannot listen at unix:\(bad): No such file or directory"), "\(handler)")
        #expect(!FileManager.default.fileExists(atPath: good))
    }

    @Test("belongs to the user, and has the mode, that the options name", .enabled(if: geteuid() == 0, "needs root"))
    func ownerAndMode() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let path = site.workspace.file("owned.sock")
        _ = try site.attach("--socket", path, "--socket-owner", "1234:1235", "--socket-mode", "660")
        var status = stat()
        #expect(lstat(path, &status) == 0)
        #expect(status.st_mode & 0o7777 == 0o660 && status.st_uid == 1234 && status.st_gid == 1235)
    }

    @Test("may have a path that is longer than the address of a socket")
    func longPath() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let folder = site.workspace.file(String(repeating: "x", count: 120))
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        let path = "\(folder)/uffd.sock"
        let handler = try site.attach("--socket", path)
        #expect(try handler.line(holding: "ready") == "ready unix:\(path)")
        // The stand-in knows short paths only.
        let link = site.workspace.file("short")
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: folder)
        let guest = try site.restore(at: "\(link)/uffd.sock")
        #expect(try guest.perform(.pass) == 1)
        guest.end()
        kill(handler.pid, SIGTERM)
        #expect(try handler.finish().status == 0)
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    // MARK: Sockets of a service manager

    private func start(_ site: RestoreSite, _ kinds: String, count: String, names: String, _ options: String...) throws
        -> Running
    {
        try site.run(
            "/usr/bin/python3",
            ["-B", Workspace.fixture("service_manager.py"), kinds, count, names, Executable.pageferry]
                + site.arguments(options)
        )
    }

    private func pid(_ manager: Running) throws -> Int32 {
        try #require(Int32(manager.line(holding: "started").dropFirst("started ".count)))
    }

    @Test("can come from a service manager, to which it still belongs afterwards")
    func given() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (one, two) = (site.workspace.file("one.sock"), site.workspace.file("two.sock"))
        let manager = try start(site, "stream:\(one),stream:\(two)", count: "2", names: "a:b")
        #expect(try manager.line(holding: "ready") == "ready unix:\(one) unix:\(two)")
        for path in [one, two] {
            let guest = try site.restore(at: path)
            #expect(try guest.perform(.pass) == 1)
            _ = try manager.errorLine(holding: "process \(guest.pid) at unix:\(path) has attached")
            let line = try manager.errorLine(holding: "serves process \(guest.pid)")
            let worker = try #require(line.split(separator: " ").compactMap { Int32($0) }.first)
            let environment = try ProcessFiles.text("/proc/\(worker)/environ")
            #expect(!environment.contains("LISTEN_"), "\(environment)")
            guest.end()
        }
        kill(try pid(manager), SIGTERM)
        let finished = try manager.finish()
        #expect(finished.output.hasSuffix("ended 0\nstill listens\n"), "\(finished)")
        #expect(FileManager.default.fileExists(atPath: one))
    }

    @Test("from a service manager is refused with a line of its own if it does not listen for streams of this host")
    func foreign() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let path = site.workspace.file("good.sock")
        let kinds = [
            "stream:\(path)", "bound:\(site.workspace.file("bound"))", "dgram:\(site.workspace.file("dgram"))", "tcp",
            "pair",
            "file", "none", "pipe",
        ]
        let names = ["good", "bound", "dgram", "tcp", "pair", "stored", "none", "guest-7"]
        let manager = try start(site, kinds.joined(separator: ","), count: "8", names: names.joined(separator: ":"))
        #expect(try manager.line(holding: "ready") == "ready unix:\(path)")
        for (number, name) in zip(3..., names) where !["good", "none", "guest-7"].contains(name) {
            let line = try manager.errorLine(
                holding: "descriptor \(number), '\(name)', of the service manager is no Unix"
            )
            #expect(line.contains("stream socket that listens, and was closed"), "\(line)")
        }
        _ = try manager.errorLine(holding: "descriptor 9, 'none', of the service manager is not open")
        _ = try manager.errorLine(holding: "'guest-7' of the service manager is kept open")
        let handler = try pid(manager)
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(handler)/fd/10").hasPrefix("pipe:"))
        let open = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(handler)/fd").map { number in
            (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(handler)/fd/\(number)")) ?? ""
        }
        #expect(open.count { $0.hasPrefix("socket:") } == 1, "\(open)")
        let guest = try site.restore(at: path)
        #expect(try guest.perform(.pass) == 1)
    }

    @Test(
        "that a service manager does not give to this process is not taken",
        arguments: [
            ("stream:S", "other", "-", 2, "missing expected argument '--socket <path>'"),
            ("stream:S", "-", "-", 2, "missing expected argument '--socket <path>'"),
            ("stream:S", "many", "-", 1, "LISTEN_FDS is 'many', which is no number of descriptors"),
            ("stream:S", "-1", "-", 1, "LISTEN_FDS is '-1', which is no number of descriptors"),
            ("stream:S", "99999999999999999999", "-", 1, "which is no number of descriptors"),
            ("stream:S", "0", "", 1, "gave no Unix stream socket that listens; name one with --socket"),
            ("pipe", "1", "x", 1, "gave no Unix stream socket that listens; name one with --socket"),
            ("none", "65536", "-", 1, "descriptor 3, 'unknown', of the service manager is not open"),
        ]
    )
    func notGiven(kinds: String, count: String, names: String, status: Int, reason: String) throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let path = site.workspace.file("s.sock")
        let manager = try start(site, kinds.replacing(":S", with: ":\(path)"), count: count, names: names)
        let finished = try manager.finish()
        #expect(finished.output.contains("ended \(status)\n"), "\(finished)")
        #expect(finished.errors.contains(reason), "\(finished)")
    }

    @Test("whose names do not match in number is taken without a name")
    func wrongNames() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let path = site.workspace.file("s.sock")
        let manager = try start(site, "stream:\(path)", count: "1", names: "a:guest-1")
        #expect(try manager.line(holding: "ready") == "ready unix:\(path)")
        _ = try manager.errorLine(holding: "LISTEN_FDNAMES has 2 names for 1 descriptors")
    }

    @Test("from a service manager is closed, and said so, if the command line names another")
    func both() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (given, own) = (site.workspace.file("given.sock"), site.workspace.file("own.sock"))
        let manager = try start(site, "stream:\(given)", count: "1", names: "a", "--socket", own)
        #expect(try manager.line(holding: "ready") == "ready unix:\(own)")
        _ = try manager.errorLine(holding: "unix:\(given) of the service manager was closed, since --socket is given")
    }
}
