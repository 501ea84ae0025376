import Foundation
import Testing

/// A report as a reader of the JSON sees it, apart from the types that wrote it.
struct Printed {
    let json: [String: Any]

    init(_ text: String) throws {
        guard let json = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any] else {
            throw TestFailure("no JSON object: \(text)")
        }
        self.json = json
    }

    func value<Value>(_ path: String...) throws -> Value {
        var here: Any = json
        for key in path {
            guard let object = here as? [String: Any], let next = object[key] else {
                throw TestFailure("the report has no \(path.joined(separator: "."))")
            }
            here = next
        }
        guard let value = here as? Value else { throw TestFailure("\(path.joined(separator: ".")) is \(here)") }
        return value
    }

    func number(_ path: String, _ key: String) throws -> Double {
        let number: NSNumber = try value(path, key)
        return number.doubleValue
    }
}

@Suite("The demo")
struct DemoTests {
    private static let destinationStates = [
        "none", "setup", "active", "postcopy-device", "postcopy-active", "completed",
    ]

    @Test("writes a report for later into a folder")
    func folder() throws {
        let workspace = try Workspace()
        let folder = workspace.file("deep/report")
        let finished = try Executable.pageferry("demo", "--memory", "16MiB", "--json", "--report", folder)
        #expect(finished.status == 0, "\(finished)")
        let json = try String(contentsOfFile: folder + "/report.json", encoding: .utf8)
        #expect(json == finished.output)
        let report = try Printed(json)
        func path(_ side: String) throws -> [(state: String, at: Double)] {
            let passed: [[String: Any]] = try report.value("timeline", side)
            return passed.compactMap { one in
                guard let state = one["state"] as? String, let at = one["at_us"] as? Double else { return nil }
                return (state, at)
            }
        }
        let (source, destination) = (try path("source"), try path("destination"))
        #expect(try report.value("source", "states") == source.map { $0.state })
        #expect(try report.value("destination", "states") == destination.map { $0.state })
        let left = try #require(source.first { $0.state == "postcopy-active" }).at
        let arrived = try #require(destination.first { $0.state == "postcopy-active" }).at
        let error: Double = try report.value("timeline", "error_us")
        #expect(arrived <= left && left - arrived <= error + 1)
        let stalls: [[Double]] = try report.value("histogram", "stall")
        let counted: Double = try report.value("stall_us", "count")
        #expect(stalls.reduce(0) { $0 + $1[1] } == counted)
        let arrivals: [NSNumber] = try report.value("arrivals", "at_ms")
        let total: Double = try report.value("total_us")
        #expect(arrivals.count == 2048 && arrivals.allSatisfy { $0.doubleValue <= total / 1000 }, "\(arrivals)")
        let page = try String(contentsOfFile: folder + "/report.html", encoding: .utf8)
        #expect(page.contains(#""schema":"pageferry.report/1""#))
        let text = try String(contentsOfFile: folder + "/stalls.hgrm", encoding: .utf8)
        #expect(text.contains("#[Mean"))
        let file = workspace.file("file")
        try Data().write(to: URL(filePath: file))
        let refused = try Executable.pageferry("demo", "--memory", "16MiB", "--report", file)
        #expect(refused.status == 1 && refused.errors.contains("--report"), "\(refused)")
    }

    @Test("starts its agents although the file of the program was removed")
    func removedProgram() throws {
        let copy = FileManager.default.temporaryDirectory.appending(
            path: "pageferry-\(UInt64.random(in: 0...UInt64.max))"
        )
        defer { try? FileManager.default.removeItem(at: copy) }
        try FileManager.default.copyItem(atPath: Executable.pageferry, toPath: copy.path)
        // The shell opens the file, removes it, and runs what it has opened.
        let script = "exec 9<\(copy.path); rm \(copy.path); exec /proc/self/fd/9 demo --memory 16MiB"
        let finished = try Executable.run("/bin/bash", ["-c", script])
        #expect(finished.status == 0, "\(finished.errors)")
    }

    @Test(
        "lets threads fetch their own pages, with a push and without one",
        .timeLimit(.minutes(1)),
        arguments: [[], ["--no-push"]]
    )
    func inThread(options: [String]) throws {
        let finished = try Executable.run(
            Executable.pageferry,
            ["demo", "--memory", "16MiB", "--threads", "3", "--device", "reads-memory", "--in-thread", "--json"]
                + options
        )
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("verify", "corrupt") == 0)
        #expect(try report.number("pages", "demand") > 0)
        #expect(try report.number("pages", "prefetched") == 0)
    }

    /// Checks that no line has more than 60 columns.
    private func expectNarrow(_ text: String) {
        let lines = text.replacingOccurrences(of: "\u{1b}[K", with: "").split(whereSeparator: \.isNewline)
        for line in lines { #expect(line.count <= 60, "\(line)") }
    }

    @Test(
        "prints a report of 60 columns",
        .timeLimit(.minutes(1)),
        arguments: [
            ["--threads", "2"], ["--device", "broken:load"], ["--prefetch", "none", "--max-bandwidth", "64MiB"],
            ["--push-lanes", "64"],
        ]
    )
    func columns(options: [String]) throws {
        let finished = try Executable.run(Executable.pageferry, ["demo", "--memory", "32MiB"] + options)
        expectNarrow(finished.output)
        #expect(finished.output.split(separator: "\n").count > 5, "\(finished)")
    }

    @Test("releases the source's memory as it is pushed, also under a bandwidth limit", .timeLimit(.minutes(1)))
    func releasesMemory() throws {
        let options = ["--memory", "32MiB", "--release-ram", "--max-bandwidth", "64MiB", "--json"]
        let finished = try Executable.run(Executable.pageferry, ["demo"] + options)
        #expect(finished.status == 0, "\(finished)")
        #expect(finished.errors.contains("memory is freed as it is sent"), "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("verify", "corrupt") == 0)
    }

    @Test(
        "moves each workload while it runs, and every page is right",
        .timeLimit(.minutes(2)),
        arguments: ["sequential", "random", "zipf", "chase", "kv"]
    )
    func movesEachWorkload(workload: String) throws {
        let finished = try Executable.pageferry(
            "demo",
            "--memory",
            "32MiB",
            "--workload",
            workload,
            "--threads",
            "2",
            "--regions",
            "3",
            "--seed",
            "1",
            "--json"
        )
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("schema") == "pageferry.report/1")
        #expect(try report.value("result") == "completed")
        #expect(try report.value("runs_on") == "destination")
        let error: NSNull = try report.value("error")
        #expect(error == NSNull())
        #expect(try report.value("destination", "states") == DemoTests.destinationStates)
        #expect(
            try report.value("source", "states")
                == ["none", "setup", "active", "device", "postcopy-device", "postcopy-active", "completed"]
        )
        let total = try report.number("pages", "total")
        #expect(total == 8192)
        #expect(try report.number("verify", "pages_checked") == total)
        #expect(try report.number("verify", "corrupt") == 0)
        #expect(try report.number("pages", "demand") > 0)
        #expect(try report.number("stall_us", "count") > 0)
        #expect(try report.number("service_us", "count") > 0)
        let arrived = try ["demand", "prefetched", "pushed", "zero"].map { try report.number("pages", $0) }
        #expect(arrived.reduce(0, +) == total)
        #expect(try report.number("workload", "ops_source") > 0)
        #expect(try report.number("workload", "ops_destination") > 0)
        #expect(try report.number("floor_us", "round_trip_p50") > 0)
        #expect(try report.number("floor_us", "local_fault_p50") > 0)
    }

    @Test("pushes over several connections, and every page is right", .timeLimit(.minutes(2)), arguments: [2, 4, 64])
    func pushLanes(lanes: Int) throws {
        let options = ["--memory", "64MiB", "--regions", "3", "--threads", "2", "--json", "--push-lanes", "\(lanes)"]
        let finished = try Executable.run(Executable.pageferry, ["demo"] + options)
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "completed")
        #expect(try report.value("push_lanes") == lanes)
        #expect(try report.number("verify", "pages_checked") == 16_384)
        #expect(try report.number("verify", "corrupt") == 0)
        #expect(try report.number("pages", "pushed") > 0)
    }

    @Test("moves every page on demand without the push", .timeLimit(.minutes(2)))
    func noPush() throws {
        let finished = try Executable.pageferry(
            "demo",
            "--memory",
            "16MiB",
            "--workload",
            "zipf",
            "--no-push",
            "--json"
        )
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "completed")
        // The workload's sweep over all pages is a stream, so prefetching counts.
        let asked = try report.number("pages", "demand") + report.number("pages", "prefetched")
        #expect(asked == 4096)
        #expect(try report.number("pages", "prefetched_unused") <= report.number("pages", "prefetched"))
        #expect(try report.number("pages", "pushed") == 0)
        #expect(try report.number("verify", "corrupt") == 0)
    }

    @Test(
        "prefetches by the given policy, even with a window longer than the memory",
        .timeLimit(.minutes(2)),
        arguments: ["none", "fault-around", "streams"]
    )
    func prefetch(policy: String) throws {
        let finished = try Executable.run(
            Executable.pageferry,
            ["demo", "--memory", "2MiB", "--workload", "sequential", "--no-push", "--prefetch", policy, "--json"]
                + (policy == "none" ? [] : ["--prefetch-window", "1024"])
        )
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        let demand = try report.number("pages", "demand")
        let prefetched = try report.number("pages", "prefetched")
        #expect(demand + prefetched == 512)
        #expect(policy == "none" ? prefetched == 0 : prefetched > demand, "\(finished)")
        #expect(try report.number("verify", "corrupt") == 0)
    }

    @Test("serves faults with the given number of threads", .timeLimit(.minutes(2)))
    func faultThreads() throws {
        let finished = try Executable.run(
            Executable.pageferry,
            ["demo", "--memory", "16MiB", "--threads", "8", "--no-push", "--fault-threads", "3", "--json"]
        )
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "completed")
        #expect(try report.number("verify", "corrupt") == 0)
    }

    @Test(
        "resumes the workload at the source when a device fails",
        .timeLimit(.minutes(2)),
        arguments: [
            ("broken:save", ["device", "failed"]),
            ("broken:load", ["postcopy-device", "failed"]),
            ("broken:start", ["postcopy-active", "failed"]),
        ]
    )
    func brokenDevice(device: String, lastStates: [String]) throws {
        let finished = try Executable.pageferry("demo", "--memory", "16MiB", "--device", device, "--json")
        #expect(finished.status == 1, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "failed")
        #expect(try report.value("runs_on") == "source")
        let states: [String] = try report.value("source", "states")
        #expect(Array(states.suffix(2)) == lastStates)
        let error: String = try report.value("error")
        #expect(error.contains("broken"))
        #expect(try report.number("workload", "ops_after_take_back") > 0)
        #expect(try report.number("workload", "ops_destination") == 0)
        #expect(try report.number("verify", "pages_checked") == 4096)
        #expect(try report.number("verify", "corrupt") == 0)
    }

    @Test("resumes the workload at the source when a hook refuses the start", .timeLimit(.minutes(2)))
    func refusingHook() throws {
        let workspace = try Workspace()
        let (hook, calls) = (workspace.file("hook"), workspace.file("calls"))
        // The hook's second start is the one at the destination.
        let script = """
            #!/bin/sh
            echo $1 >> \(calls)
            [ "$(tail -n 1 \(calls)) $(grep -c start \(calls))" != "start 2" ] || { echo no volume >&2; exit 1; }
            """
        try Data(script.utf8).write(to: URL(fileURLWithPath: hook))
        chmod(hook, 0o700)
        let finished = try Executable.pageferry("demo", "--memory", "16MiB", "--device", "hook:\(hook)", "--json")
        #expect(finished.status == 1, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("runs_on") == "source")
        let error: String = try report.value("error")
        #expect(error.contains("\(hook) start ended with status 1: no volume"))
        #expect(try report.number("workload", "ops_after_take_back") > 0)
        #expect(try report.number("workload", "ops_destination") == 0)
        let order = try String(contentsOfFile: calls, encoding: .utf8).split(separator: "\n")
        #expect(order == ["start", "undo", "start", "undo", "start"])
    }

    @Test("hands a disk's lock over with the workload", .timeLimit(.minutes(2)))
    func disk() throws {
        let workspace = try Workspace()
        let image = workspace.file("disk.img")
        try Data(count: 4096).write(to: URL(fileURLWithPath: image))
        let finished = try Executable.pageferry("demo", "--memory", "16MiB", "--device", "disk:\(image)", "--json")
        #expect(finished.status == 0, "\(finished)")
        #expect(try Printed(finished.output).value("result") == "completed")
    }

    @Test(
        "loads devices that are large, slow, or read memory that has not arrived",
        .timeLimit(.minutes(2)),
        arguments: ["large:8", "slow:load=0.2", "reads-memory"]
    )
    func demandingDevices(device: String) throws {
        let finished = try Executable.pageferry("demo", "--memory", "16MiB", "--device", device, "--json")
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "completed")
        #expect(try report.number("verify", "corrupt") == 0)
    }

    @Test("finds every line of a loaded file at the destination", .timeLimit(.minutes(2)))
    func loadedFile() throws {
        let workspace = try Workspace()
        let lines = (0..<180_000).map { "line \($0) of a log: \(String(repeating: "x", count: $0 % 61)) ends" }
        let log = Data(lines.joined(separator: "\n").utf8)
        try #require(log.count > 10_000_000)
        try log.write(to: URL(fileURLWithPath: workspace.file("log")))
        let finished = try Executable.pageferry(
            "demo",
            "--memory",
            "64MiB",
            "--workload",
            "kv",
            "--load",
            workspace.file("log"),
            "--json"
        )
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.number("verify", "lines_total") == 180_000)
        #expect(try report.number("verify", "lines_found") == 180_000)
        #expect(try report.number("verify", "corrupt") == 0)
    }

    @Test("shows its progress on a terminal", .timeLimit(.minutes(2)))
    func progress() throws {
        // Every page arrives by a fault, so that the move lasts long enough to show its progress.
        let command = "\(Executable.pageferry) demo --memory 32MiB --no-push"
        let finished = try Executable.run("/usr/bin/script", ["-qec", command, "/dev/null"])
        #expect(finished.status == 0, "\(finished)")
        #expect(finished.output.contains(/postcopy-active \d+\/8192 pages \d+ MiB\/s p99 \d+ µs/))
        #expect(finished.output.contains("completed: the workload runs on the destination"))
        expectNarrow(finished.output)
    }

    @Test("prints a table that a person can read", .timeLimit(.minutes(2)))
    func table() throws {
        let finished = try Executable.pageferry("demo", "--memory", "16MiB")
        #expect(finished.status == 0, "\(finished)")
        for word in ["completed", "destination", "downtime", "demand", "pushed", "p99", "round trip", "local fault"] {
            #expect(finished.output.contains(word), "no '\(word)' in:\n\(finished.output)")
        }
    }

    @Test("times out while the source still fills its memory", .timeLimit(.minutes(1)))
    func timeout() throws {
        let begin = Date()
        let finished = try Executable.pageferry("demo", "--memory", "8GiB", "--timeout", "500ms", seconds: 50)
        #expect(finished.status == 1, "\(finished)")
        #expect(finished.errors.contains("did not end within"), "\(finished)")
        // `demo` waits 10 s before it kills an agent; that must not happen here.
        #expect(Date().timeIntervalSince(begin) < 9)
    }
}
