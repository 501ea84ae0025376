import Foundation
import LinuxSystem
import PageProtocol
import SnapshotClient
import Testing

@Suite("A snapshot's server with many clients", .timeLimit(.minutes(2)))
struct ManyClientsTests {
    private struct Joined {
        let client: SnapshotClient
        let urgent: SharedSocket
        let bulk: SharedSocket
    }

    private static let pageCount = 256

    private func join(_ address: SocketAddress) throws -> Joined {
        let client = try SnapshotClient(to: address)
        try client.take([SnapshotSlice(offset: 0, pageSize: 4096, pageCount: UInt64(Self.pageCount))])
        return Joined(client: client, urgent: try client.join(.urgent), bulk: try client.join(.bulk))
    }

    private func expectPage(_ lane: SharedSocket, _ page: Int) throws {
        let answer = try lane.stream.ask(PageRun(region: 0, count: 1, first: UInt64(page)))
        #expect(answer.bytes == SparseFile.content(ofPage: page))
    }

    /// A number of `/proc/PID/status`.
    private func status(_ name: String, of process: Int32) throws -> Int {
        let text = try ProcessFiles.text("/proc/\(process)/status")
        let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("\(name):") })
        return try #require(line.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }.first)
    }

    /// Waits until a process has at most this many threads.
    ///
    /// - Returns: the number of its threads.
    private func threads(of process: Int32, atMost count: Int) throws -> Int {
        let deadline = MonotonicClock.now() + 20_000_000_000
        while true {
            let threads = try status("Threads", of: process)
            if threads <= count || MonotonicClock.now() > deadline { return threads }
            usleep(10_000)
        }
    }

    @Test("has no more threads with a thousand idle clients than with ten, and serves each of them")
    func thousand() throws {
        DescriptorLimit.raise()
        let file = try SparseFile(byteCount: Self.pageCount * 4096)
        try file.write(pages: 0..<Self.pageCount)
        let server = try Running(
            Executable.pageferry,
            ["serve", "--snapshot", file.path, "--listen", "127.0.0.1:0", "--peer-timeout", "100s"]
        )
        defer { server.end() }
        let address = try SocketAddress(String(try server.line(holding: "ready tcp:").dropFirst(6)))
        var clients: [Joined] = []
        func join(upTo count: Int) throws {
            while clients.count < count {
                clients.append(try self.join(address))
                try expectPage(clients[clients.count - 1].urgent, clients.count % Self.pageCount)
            }
        }
        try join(upTo: 10)
        // The threads of the process itself, and those that wait for idle connections.
        let few = try threads(of: server.pid, atMost: 16)
        let before = try status("VmRSS", of: server.pid)
        try join(upTo: 1000)
        let many = try threads(of: server.pid, atMost: few)
        let after = try status("VmRSS", of: server.pid)
        #expect(many <= few + 2, "\(few) threads with 10 clients, \(many) with 1000")
        let each = Double(after - before) / 990
        print("1000 clients: \(many) threads (10 clients: \(few)), \(each) KiB of memory for each idle client")
        #expect(each < 32, "an idle client takes \(each) KiB")
        for (number, joined) in clients.enumerated() {
            try expectPage(joined.urgent, (number + 7) % Self.pageCount)
            try expectPage(joined.bulk, (number + 8) % Self.pageCount)
        }
        #expect(try threads(of: server.pid, atMost: few) <= few + 2)
    }
}
