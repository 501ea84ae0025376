import FirecrackerRig
import Foundation
import Glibc
import OwnThread
import Testing

/// The Debian package, installed into a copy of this host without Swift.
///
/// The package is made of the release build that PAGEFERRY names, which must contain the Swift libraries.
@Suite("The Debian package", .ownThread, .timeLimit(.minutes(4)))
struct PackageTests {
    private static let project = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("../..").standardized.path
    static let canInstall = Executable.isReleaseBuild && geteuid() == 0

    func package(version: String, in site: RestoreSite) throws -> String {
        let script = "\(PackageTests.project)/Scripts/package"
        let words = ["VERSION=\(version)", "COMPRESSION=none", script, Executable.pageferry, site.workspace.path]
        let made = try Executable.run("/usr/bin/env", words)
        try #require(made.status == 0, "\(made)")
        return try #require(made.output.split(separator: "\n").last.map(String.init))
    }

    private func attach(_ room: PackageRoom, _ site: RestoreSite) throws -> Running {
        let options = ["--socket", site.workspace.file("u.sock"), "--state", site.workspace.file("state")]
        let words = room.words(["/usr/bin/pageferry"] + site.arguments(options))
        return try site.ready(try site.run(words[0], Array(words.dropFirst())))
    }

    @Test(
        "is installed, upgraded under running guests, and removed, which no guest notices",
        .enabled(if: canInstall, "needs root, and a release build in PAGEFERRY")
    )
    func life() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (first, second) = (try package(version: "1.0", in: site), try package(version: "1.1", in: site))
        let room = try PackageRoom(in: site)
        try room.run("dpkg", "--force-unsafe-io", "-i", first)
        // Swift is not installed there.
        let swift = try room.run("sh", "-c", "command -v swift || ldd /usr/bin/pageferry | grep -i swift", status: 1)
        #expect(swift.output.isEmpty, "\(swift)")
        #expect(try room.run("pageferry", "--version").output.hasPrefix("pageferry "))
        #expect(try room.run("pageferry", "probe").output.contains("yes  Linux"))
        for path in [
            "/usr/share/man/man1/pageferry.1.gz", "/usr/share/man/man1/pageferry-attach.1.gz",
            "/usr/share/bash-completion/completions/pageferry", "/lib/systemd/system/pageferry-attach.service",
            "/lib/udev/rules.d/60-pageferry.rules", "/etc/pageferry/config.yaml",
        ] { #expect(try room.has(path), "\(path) is missing") }
        #expect(try room.run("pageferry", "config").output == "file: /etc/pageferry/config.yaml\n")
        // The user of the units can open a userfaultfd, and no other user can.
        if FileManager.default.fileExists(atPath: "/dev/userfaultfd") {
            let user = ["setpriv", "--reuid", "pageferry", "--regid", "pageferry", "--init-groups"]
            let words = room.words(user + ["pageferry", "probe"])
            let probed = try Executable.run(words[0], Array(words.dropFirst()))
            #expect(probed.output.contains(/yes  userfaultfd +opens/), "\(probed)")
        }

        let handler = try attach(room, site)
        let socket = site.workspace.file("u.sock")
        let guests = try (0..<2).map { _ in try site.restore(at: socket) }
        for guest in guests { #expect(try guest.perform(.workingSet) == 1) }

        // An operator has changed the configuration, which the upgrade keeps.
        try room.run("sh", "-c", "echo '# mine' >>/etc/pageferry/config.yaml")
        try room.run("dpkg", "--force-unsafe-io", "-i", second)
        try room.run("grep", "-q", "mine", "/etc/pageferry/config.yaml")
        #expect(try room.run("dpkg-query", "-W", "-f", "${Version}", "pageferry").output == "1.1")
        // As systemd does with KillMode=process.
        kill(handler.pid, SIGKILL)
        // The handler was killed.
        _ = try? handler.finish()
        guests[1].send(.pass)
        let next = try attach(room, site)
        for guest in guests { _ = try next.errorLine(holding: "process \(guest.pid) at unix:\(socket) was adopted") }
        #expect(try guests[1].wait(for: "pass", seconds: 60) == 1)
        #expect(try guests[0].perform(.pass) == 1)

        // The handler serves on from the removed program, new guests too.
        try room.run("dpkg", "-r", "pageferry")
        #expect(try !room.has("/usr/bin/pageferry") && room.has("/etc/pageferry/config.yaml"))
        #expect(try site.restore(at: socket).perform(.pass) == 1)
        #expect(try guests.allSatisfy { try $0.perform(.pass) == 2 })
        try room.run("dpkg", "-P", "pageferry")
        #expect(try !room.has("/etc/pageferry") && !room.has("/lib/systemd/system/pageferry-attach.service"))
    }

    @Test(
        "has manual pages that are read without a warning, with all options and the exit statuses",
        .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/groff"), "there is no groff")
    )
    func manual() throws {
        let workspace = try Workspace()
        let script = "\(PackageTests.project)/Scripts/manual"
        let written = try Executable.run(script, [Executable.pageferry, workspace.path])
        #expect(written.status == 0, "\(written)")
        let pages = try FileManager.default.contentsOfDirectory(atPath: workspace.path).sorted()
        #expect(pages.contains("pageferry.1") && pages.contains("pageferry-attach.1") && pages.count > 14, "\(pages)")
        #expect(!pages.contains("pageferry-child-agent.1"))
        for page in pages {
            let read = try Executable.run(
                "/usr/bin/groff",
                ["-man", "-Tutf8", "-Kutf8", "-ww", "-rLL=200n", "-P-c", "-P-b", "-P-u", workspace.file(page)]
            )
            #expect(read.status == 0 && read.errors.isEmpty, "\(page): \(read.errors)")
            #expect(read.output.contains("EXIT STATUS") && read.output.contains("The work is done."), "\(page)")
            if page == "pageferry-attach.1" {
                for words in ["--give-up", "--socket-owner", "pageferry attach --socket /run/pageferry-uffd.sock"] {
                    #expect(read.output.replacing("‐", with: "-").contains(words), "\(words): \(read.output)")
                }
            }
        }
    }
}
