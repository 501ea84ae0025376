import Guest
import Testing

@testable import Workloads

@Suite("A configuration")
struct ConfigurationTests {
    @Test("survives a round trip through its description")
    func roundTrip() throws {
        var configuration = WorkloadConfiguration.small(
            .kv,
            threads: 7,
            writes: 0.1,
            thinkTime: 123_456_789,
            load: LineFile(path: "/tmp/ä \"b\"", lineCount: 3, digest: .max - 1),
            devices: [.broken(at: .load), .slow(at: .start, seconds: 0.25), .readsMemory, .large(mebibytes: 3)]
        )
        configuration.seed = .max
        let description = configuration.description
        #expect(description.kind == "built-in")
        #expect(description.regions.map(\.pageCount) == [166, 166, 168])
        #expect(try WorkloadConfiguration(description) == configuration)
    }

    @Test("is refused in one line if its values do not fit together")
    func refused() {
        func message(_ change: (inout WorkloadConfiguration) -> Void) -> String {
            var configuration = WorkloadConfiguration.small(.random)
            change(&configuration)
            let error = #expect(throws: WorkloadError.self) { try configuration.validate() }
            return error?.description ?? ""
        }
        #expect(message { $0.threads = 0 }.contains("0 threads cannot share 500 pages; give 1 to 500"))
        #expect(message { $0.threads = 501 }.contains("501 threads"))
        #expect(message { $0.memoryBytes = 4097 }.contains("4097 bytes is not one or more whole pages"))
        #expect(message { $0.memoryBytes = 0 }.contains("whole pages"))
        #expect(message { $0.memoryBytes = -4096 }.contains("whole pages"))
        #expect(message { $0.memoryBytes = .max & ~4095 }.contains("too large"))
        #expect(message { $0.pageSize = 0 }.contains("a page cannot have 0 bytes"))
        #expect(
            message { $0.pageSize = 8192 }.contains("a page cannot have 8192 bytes; only 4096 and 2097152 are served")
        )
        #expect(message { $0.pageSize = 2 << 20 }.contains("2048000 bytes is not one or more whole pages of 2097152"))
        #expect(message { $0.regionCount = 0 }.contains("0 regions"))
        #expect(message { $0.writeFraction = 1.01 }.contains("1.01"))
        #expect(message { $0.writeFraction = .nan }.contains("nan"))
        #expect(message { $0.thinkTime = .max }.contains("longer than an hour"))
        #expect(message { $0.load = LineFile(path: "/x", lineCount: 1, digest: 0) }.contains("choose the workload kv"))
        #expect(
            message { ($0.pattern, $0.load) = (.kv, LineFile(path: "/x", lineCount: -1, digest: 0)) }.contains("-1")
        )
        #expect(
            message { $0.devices = [DeviceSpecification](repeating: .readsMemory, count: 61) }
                .contains("61 devices are too many; give at most 60")
        )
        #expect(message { $0.regionCount = 65 }.contains("cannot be split into 65 regions; give 1 to 64"))
        #expect(message { $0.devices = [.large(mebibytes: 500), .large(mebibytes: 524)] }.contains("at most 1024 MiB"))
        #expect(message { $0.memoryBytes = 1 << 40 }.contains("at most 1024 MiB"))
    }

    @Test("accepts as much as can be moved, and its devices save no more than it predicts")
    func largest() throws {
        var configuration = WorkloadConfiguration.small(.random, threads: 3)
        configuration.regionCount = 64
        configuration.devices = [DeviceSpecification](repeating: .readsMemory, count: 59) + [.large(mebibytes: 1)]
        try configuration.validate()
        let workload = try BuiltInWorkload(new: configuration)
        try workload.run(operations: 1)
        let saved = try workload.devices.save()
        #expect(saved.count == 64)
        #expect(saved.reduce(0) { $0 + $1.state.count } <= configuration.stateBytes)
    }

    @Test("is refused if the description contradicts it or is of another kind")
    func badDescription() {
        var description = WorkloadConfiguration.small(.random).description
        func message() -> String {
            #expect(throws: WorkloadError.self) { _ = try WorkloadConfiguration(description) }?.description ?? ""
        }
        description.regions[1].pageCount += 1
        #expect(message().contains("regions do not match"))
        let text = String(decoding: description.configuration, as: UTF8.self)
        description.configuration = Array(
            text.replacing("\"pageSize\":4096", with: "\"pageSize\":8192").utf8
        )
        #expect(message().contains("a page cannot have 8192 bytes"))
        description.configuration = Array("{\"pattern\":\"random\"}".utf8)
        #expect(message().contains("cannot be read"))
        description.kind = "kvm"
        #expect(message().contains("kind 'kvm'"))
    }

    @Test(
        "reads and writes a device's text form",
        arguments: [
            ("broken:save", DeviceSpecification.broken(at: .save)), ("broken:start", .broken(at: .start)),
            ("slow:load=1.5", .slow(at: .load, seconds: 1.5)), ("slow:save=2", .slow(at: .save, seconds: 2)),
            ("reads-memory", .readsMemory), ("large:64", .large(mebibytes: 64)),
            ("disk:/a b/c:d", .disk(path: "/a b/c:d")), ("hook:/h", .hook(path: "/h")),
        ]
    )
    func device(text: String, device: DeviceSpecification) throws {
        #expect(try DeviceSpecification(parsing: text) == device)
        #expect(try DeviceSpecification(parsing: device.description) == device)
    }

    @Test(
        "refuses an unknown device",
        arguments: [
            "", "broken", "broken:", "broken:stop", "slow:load", "slow:load=", "slow:load=-1", "slow:load=nan",
            "slow:load=1e9", "slow=load:1", "reads-memory:1", "large", "large:0", "large:1.5", "large:1024", "disk",
            "hook",
        ]
    )
    func noDevice(text: String) {
        let error = #expect(throws: WorkloadError.self) { _ = try DeviceSpecification(parsing: text) }
        let beginning = "'\(text)' is not a device; give disk:PATH, hook:PATH (absolute), broken:save|load|start"
        #expect(error?.description.hasPrefix(beginning) == true)
    }

    @Test(
        "refuses a device whose path is not that of a file",
        arguments: ["disk:", "disk:a.img", "disk:/a/", "hook:/", "hook:./h", "hook:/\0"]
    )
    func noPath(text: String) {
        let error = #expect(throws: WorkloadError.self) { _ = try DeviceSpecification(parsing: text) }
        let beginning = "'\(text)' is not a device: its path must be the absolute one of a file"
        #expect(error?.description.hasPrefix(beginning) == true)
    }
}
