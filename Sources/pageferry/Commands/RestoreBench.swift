import Bench
import Foundation
import LinuxSystem
import WorkingSet

/// Measures how long a restored guest waits for its pages, with `serve` and `attach` on this host.
struct RestoreBench {
    let rounds: Int
    /// The size, in pages, of the memory on which single faults are measured.
    let faults: Int
    /// The size, in pages, of the memory that a guest touches once, with and without its working set.
    let pages: Int

    func run(_ bench: borrowing Bench, _ onProgress: (String) -> Void) throws -> [Comparison] {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let site = try Site(in: folder.path, "small", pages: faults)
        defer { site.end() }
        onProgress("restored-fault")
        let single = try singleFaults(bench, site, polls: false, think: 0)
        onProgress("restored-quiet-fault")
        let quiet = try singleFaults(bench, site, polls: true, think: 50_000)
        onProgress("restored-pass")
        var known: [(ours: Figures, other: Figures)] = []
        var unknown: [(ours: Figures, other: Figures)] = []
        let order = (0..<pages).shuffled()
        let record = "\(folder.path)/record"
        let memory = try WorkingSet.Memory(pageSize: 4096, byteCount: UInt64(pages) * 4096)
        try WorkingSet(pages: order.lazy.map { UInt32($0) }, of: memory, window: 1000).write(to: record)
        let plain = try Site(in: folder.path, "large", pages: pages)
        defer { plain.end() }
        let ahead = try Handler(in: folder.path, "ahead", from: plain.address, ["--prefetch", record])
        defer { ahead.end() }
        for _ in 0..<rounds {
            let bare = try bench.bareFaults(pages, polls: true)
            known.append((try bench.restored(touching: order, with: ahead.socket), bare))
            unknown.append((try bench.restored(touching: order, with: plain.socket), bare))
        }
        return [
            Comparison("restored-fault", against: "bare remote fault", single),
            Comparison("restored-quiet-fault", against: "bare remote fault, polling", quiet),
            Comparison("restored-pass", against: "bare remote faults, polling", known),
            Comparison("restored-pass-unknown", against: "bare remote faults, polling", unknown),
        ]
    }

    /// Measures single faults of a guest that works for `think` nanoseconds after each, beside those of bare code.
    private func singleFaults(
        _ bench: borrowing Bench,
        _ site: Site,
        polls: Bool,
        think: UInt64
    ) throws -> [(ours: Figures, other: Figures)] {
        var figures: [(ours: Figures, other: Figures)] = []
        for number in 0..<rounds {
            // The side that goes first alternates, so that a drift harms both equally.
            let early = number % 2 == 0 ? nil : try bench.bareFaults(faults, polls: polls, think: think)
            var ours = try bench.restored(touching: (0..<faults).shuffled(), with: site.socket, think: think)
            var other = try early ?? bench.bareFaults(faults, polls: polls, think: think)
            (ours.seconds, other.seconds) = (nil, nil)
            figures.append((ours, other))
        }
        return figures
    }

    /// A snapshot, its server, and a page fault handler.
    private struct Site {
        private let server: ReadyProcess
        private let handler: Handler

        init(in folder: String, _ name: String, pages: Int) throws {
            let snapshot = "\(folder)/\(name)"
            try Site.write(pages, to: snapshot)
            server = try ReadyProcess(["serve", "--snapshot", snapshot, "--listen", "127.0.0.1:0"])
            do {
                let address = String(server.ready.dropFirst("tcp:".count))
                handler = try Handler(in: folder, name, from: address, [])
            } catch {
                server.end()
                throw error
            }
        }

        var address: String { String(server.ready.dropFirst("tcp:".count)) }
        var socket: String { handler.socket }

        func end() {
            handler.end()
            server.end()
        }

        /// Writes a snapshot in which each page begins with its number, counted from 1.
        private static func write(_ pages: Int, to path: String) throws {
            guard FileManager.default.createFile(atPath: path, contents: nil) else {
                throw Failure("cannot write \(path); make room in /tmp")
            }
            let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
            var page = Data(repeating: 0x5a, count: 4096)
            for number in 1...UInt64(pages) {
                withUnsafeBytes(of: number.littleEndian) { page.replaceSubrange(0..<8, with: $0) }
                try file.write(contentsOf: page)
            }
            try file.close()
        }
    }

    /// A process of `pageferry attach`.
    private struct Handler {
        private let process: ReadyProcess
        let socket: String

        init(in folder: String, _ name: String, from server: String, _ options: [String]) throws {
            socket = "\(folder)/\(name).sock"
            process = try ReadyProcess(
                ["attach", "--socket", socket, "--from", server, "--log-level", "error"] + options
            )
        }

        func end() { process.end() }
    }
}
