import Compression
import Firecracker
import Foundation
import Guest
import Identity
import LinuxSystem
import PageProtocol
import Telemetry
import Testing
import WorkingSet

@testable import Attachments
@testable import Controller
@testable import FaultHandler
@testable import KVMGuest
@testable import MicroVMGuest
@testable import QMP
@testable import Workloads

/// Damaged input for every decoder of foreign bytes, which must give an error or a value, never a trap.
@Suite("Damaged input", .timeLimit(.minutes(5)))
struct DecoderTests {
    private static let rounds = 5000

    private func json(_ value: some Encodable) throws -> String {
        String(decoding: try JSONEncoder().encode(value), as: UTF8.self)
    }

    @Test("on the control connection is refused or read")
    func controlFrames() throws {
        var mutator = Mutator("control frames")
        let regions = [RegionShape(name: "ram", guestAddress: 0, pageSize: 4096, pageCount: 512)]
        let messages: [ControlMessage] = [
            .regions(guest: GuestAnnouncement(kind: "demo", configuration: [1, 2], regions: regions)),
            .devices([DeviceEntry(name: "cpu", byteCount: 28), DeviceEntry(name: "clock", byteCount: 8)]),
            .received(ReceivedPages(region: 0, first: 0, bits: [UInt8](repeating: 0xff, count: 64))),
            .slices([SnapshotSlice(offset: 4096, pageSize: 4096, pageCount: 3)]),
            .run(token: 7, epoch: 3), .startFailed(token: 1, reason: "held"),
            .devicesFailed(device: "cpu", reason: "no"),
        ]
        for _ in 0..<Self.rounds {
            guard let message = messages.randomElement(using: &mutator) else { return }
            let payload = mutator.damaged(Array(try message.encode().dropFirst(8)))
            guard let read = try? ControlMessage.decode(kind: message.kind, payload: payload.span.bytes) else {
                continue
            }
            switch read {
            case .received(let part):
                var map = ReceivedMap(pageCounts: [512, 7])
                _ = map.add(part) && map.add(part)
            case .devices(let entries) where entries.allSatisfy({ $0.byteCount < 1 << 16 }):
                var arriving = ArrivingDevices(entries, since: ["cpu": [1, 2, 3]])
                _ = arriving.add(payload) && arriving.add(payload)
            case .regions(let guest):
                _ = try RegionTable(guest.regions)
                _ = guest.description
            case .slices(let slices): _ = (try RegionTable(slices: slices), slices.map(\.end))
            default: break
            }
        }
    }

    @Test("of a patch is refused or applied")
    func patches() {
        var mutator = Mutator("patches")
        let old = [UInt8](repeating: 5, count: 600)
        var new = old + [1, 2, 3]
        for place in stride(from: 0, to: 600, by: 50) { new[place] = 9 }
        let sound = StatePatch.make(from: old, to: new)
        for _ in 0..<Self.rounds {
            let state = StatePatch.apply(mutator.damaged(sound), to: old, limit: 1 << 20)
            #expect(state?.count ?? 0 <= 1 << 20)
        }
    }

    @Test("on a page lane is refused or read")
    func laneFrames() throws {
        var mutator = Mutator("lane frames")
        let table = try RegionTable([
            RegionShape(name: "ram", guestAddress: 0, pageSize: 4096, pageCount: 512),
            RegionShape(name: "high", guestAddress: 1 << 32, pageSize: 2 << 20, pageCount: 3),
        ])
        var sound = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
        for _ in 0..<Self.rounds {
            let run = PageRun(region: .random(in: 0...1, using: &mutator), count: 1, first: 2)
            let frames = [
                LaneFrame.pageRequest(run), .zeroes(run), .pages(run, pageSize: 4096), .aheadRequest(run), .sent(run),
                .compressed(run, by: .lz4, byteCount: 100), .compressed(run, by: .zstd, byteCount: 100),
            ]
            let frame = frames.randomElement(using: &mutator)
            sound.withUnsafeMutableBytes { bytes in bytes.baseAddress.map { frame?.encode(into: $0) } }
            let bytes = mutator.damaged(sound)
            if let frame = try? LaneFrame.decode(bytes.span.bytes) { _ = try? table.extent(of: frame) }
        }
    }

    @Test("of compressed pages is refused, or inflates to as many bytes as expected", arguments: Codec.allCases)
    func compressedPages(codec: Codec) throws {
        var mutator = Mutator("pages compressed by \(codec)")
        let compressor = Compressor([codec])
        let inflater = Inflater(byteCount: 16384)
        let pages = (0..<16384).map { UInt8(truncatingIfNeeded: $0 / 40 &* 7) }
        var sound = [UInt8](repeating: 0, count: 16384)
        let count = pages.withUnsafeBytes { pages in
            sound.withUnsafeMutableBytes { compressor.compress(pages, by: codec, into: $0) }
        }
        sound.removeLast(sound.count - (try #require(count)))
        for _ in 0..<Self.rounds {
            let expected = Int.random(in: 1...4, using: &mutator) * 4096
            let found = mutator.damaged(sound).withUnsafeBytes { bytes in
                try? inflater.inflate(bytes, by: codec, to: expected).count
            }
            #expect(found == nil || found == expected)
        }
    }

    @Test("of a hand-off is refused or read")
    func handOffs() throws {
        var mutator = Mutator("hand-offs")
        var sound: [UInt8] = []
        func append(_ value: some FixedWidthInteger) { withUnsafeBytes(of: value.littleEndian) { sound += $0 } }
        append(HandOff.magic)
        append(UInt16(2))
        append(UInt16(2))
        for region: UInt64 in 0..<2 {
            append(region << 30)
            append(UInt64(1 << 20))
            append(UInt32(4096))
            append(UInt32(1))
            append(region << 20)
        }
        let firecracker = """
            [{"base_host_virt_addr":1073741824,"size":1048576,"offset":0,"page_size":4096,"page_size_kib":4096},\
            {"base_host_virt_addr":3221225472,"size":2097152,"offset":1048576,"page_size":4096}]
            """
        for _ in 0..<Self.rounds {
            if let handOff = try? HandOff(mutator.damaged(sound)) { _ = handOff.descriptorCount }
            guard let handOff = try? FirecrackerHandOff(mutator.damagedJSON(firecracker)) else { continue }
            _ = handOff.regions.reduce(0) { $0 + $1.range.byteCount }
        }
    }

    @Test("of a worker's task is refused or read")
    func tasks() throws {
        var mutator = Mutator("tasks")
        let sound = """
            {"process":1,"socket":"unix:/s","regions":[{"address":4096,"pageSize":4096,"pageCount":7,"offset":0}],\
            "keepsSocketOpen":true,"hasConnection":true,"settings":{"source":"a:1","giveUpSeconds":60,"onLost":"hold","peerTimeoutSeconds":5,\
            "faultThreads":1,"recordMilliseconds":1000,"record":"/r"}}
            """
        #expect(throws: Never.self) { try GuestTask(reading: Array(sound.utf8)) }
        for _ in 0..<Self.rounds {
            guard let task = try? GuestTask(reading: mutator.damagedJSON(sound)) else { continue }
            _ = (SessionMemory.byteCount(for: task), task.regions.map(\.slice), task.regions.map(\.range.byteCount))
            _ = (Duration.seconds(task.settings.peerTimeoutSeconds), try? task.settings.address)
        }
    }

    @Test("of a guest's configuration is refused or read")
    func configurations() throws {
        var mutator = Mutator("configurations")
        let builtIn = WorkloadConfiguration(
            memoryBytes: 1 << 20,
            devices: [.disk(path: "/a"), .slow(at: .load, seconds: 1), .large(mebibytes: 3)]
        )
        .description
        let kvm = KVMConfiguration(memoryBytes: 4 << 20).description
        let microVM = try MicroVMConfiguration(firecracker: "1", machine: Machine(memoryMiB: 128)).description
        for _ in 0..<Self.rounds / 2 {
            for sound in [builtIn, kvm, microVM] {
                var guest = sound
                guest.configuration = mutator.damagedJSON(String(decoding: sound.configuration, as: UTF8.self))
                _ = try? WorkloadConfiguration(guest)
                _ = try? KVMConfiguration(guest)
                _ = try? MicroVMConfiguration(guest)
            }
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            let machine = mutator.damagedJSON(#"{"vcpu_count":1,"mem_size_mib":128,"huge_pages":"None"}"#)
            guard let machine = try? decoder.decode(Machine.self, from: Data(machine)) else { continue }
            _ = (try? MicroVMConfiguration(firecracker: "1", machine: machine))?.description
        }
    }

    @Test("of an agent's report is refused or shown")
    func reports() throws {
        var mutator = Mutator("reports")
        var report = AgentReport(instance: "0")
        report.source = AgentReport.Source()
        report.destination = AgentReport.Destination()
        report.destination?.pages.demand = 7
        let sound = try json(report)
        for _ in 0..<Self.rounds {
            guard let text = try? JSONReader.read(mutator.damagedJSON(sound)),
                let read = try? JSONDecoder().decode(AgentReport.self, from: JSONEncoder().encode(text))
            else { continue }
            _ = read.destination?.pages.resident
            if (try? read.requireSound()) == nil { continue }
            _ = try Report(source: read, destination: read, verify: Report.Verify()).json()
        }
    }

    @Test("on a control socket is refused or read")
    func commands() throws {
        var mutator = Mutator("commands")
        let sound = """
            {"execute":"migrate-set-parameters","arguments":{"max-postcopy-bandwidth":5,"a":[1,{"b":true}],"c":"\\u00e9"},\
            "id":7}
            """
        var splitter = MessageSplitter(maximumBytes: 4096)
        for _ in 0..<Self.rounds {
            let bytes = mutator.damagedJSON(sound)
            var rest = bytes[...]
            while let piece = splitter.next(from: &rest) {
                if case .tooLong = piece { splitter = MessageSplitter(maximumBytes: 4096) }
            }
            guard let value = try? JSONReader.read(bytes),
                let (command, _) = try? QMPCommand.read(value, outOfBandAllowed: true)
            else { continue }
            _ = (try? command.integer("max-postcopy-bandwidth"), try? command.array("a"), value.description)
        }
    }

    @Test("of a working set is refused or read")
    func workingSets() throws {
        var mutator = Mutator("working sets")
        let memory = try WorkingSet.Memory(pageSize: 4096, byteCount: 1 << 24)
        let sound = try WorkingSet(pages: [1, 2, 3, 9, 7, 700], of: memory, window: 5).encode()
        for _ in 0..<Self.rounds {
            var bytes = mutator.damaged(sound)
            // Correct the checksum, which would otherwise catch almost every damage.
            if bytes.count > 36 {
                let sum = bytes.dropLast(4).reduce(UInt32.max) { sum, byte in
                    (0..<8).reduce(sum ^ UInt32(byte)) { value, _ in
                        value & 1 == 0 ? value >> 1 : value >> 1 ^ 0xedb8_8320
                    }
                }
                withUnsafeBytes(of: (~sum).littleEndian) {
                    bytes.replaceSubrange(bytes.count - 4..<bytes.count, with: $0)
                }
            }
            guard let set = try? WorkingSet.decode(bytes.span.bytes) else { continue }
            _ = (set.pieces(ofAtMost: 16).reduce(0) { $0 + UInt64($1.count) }, set.byteCount, set.share(inRunsOf: 4))
        }
    }

    @Test("of a device's state is refused, or a workload continues from it")
    func deviceStates() throws {
        var mutator = Mutator("device states")
        let image = "/tmp/pft-hostile-\(UInt32.random(in: 0...UInt32.max))"
        try Data(count: 4096).write(to: URL(fileURLWithPath: image))
        defer { try? FileManager.default.removeItem(atPath: image) }
        for pattern in AccessPattern.allCases {
            let workload = try BuiltInWorkload(
                new: WorkloadConfiguration(
                    pattern: pattern,
                    memoryBytes: 64 << 12,
                    threads: 2,
                    devices: [.disk(path: image), .readsMemory, .broken(at: .start)]
                )
            )
            let sound = try workload.devices.save()
            for _ in 0..<Self.rounds / 20 {
                guard let index = sound.indices.randomElement(using: &mutator) else { return }
                var states = sound
                states[index] = DeviceSet.Saved(name: sound[index].name, state: mutator.damaged(sound[index].state))
                guard (try? workload.devices.load(states)) != nil else { continue }
                _ = try? workload.devices.acquire()
                try? workload.devices.release()
                try workload.perform(operationsPerThread: 3)
                _ = try workload.devices.save()
            }
        }
    }

    @Test("on a command line is refused or read")
    func arguments() {
        var mutator = Mutator("arguments")
        let sound = ["disk:/a", "hook:/b", "slow:load=1e3", "large:7", "tcp:[::1]:7000", "unix:/run/x", "127.0.0.1:1"]
        for _ in 0..<Self.rounds {
            guard let text = sound.randomElement(using: &mutator) else { return }
            let damaged = String(decoding: mutator.damaged(Array(text.utf8)), as: UTF8.self)
            _ = try? DeviceSpecification(parsing: damaged)
            _ = try? SocketAddress(damaged)
        }
    }
}
