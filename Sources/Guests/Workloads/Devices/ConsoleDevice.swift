import Guest
import Synchronization

/// The workload's serial console: the newest 4 KiB of its output, and the number of bytes ever written.
final class ConsoleDevice: Device {
    /// The most bytes of output that are kept.
    static let capacity = 4096

    let name = "serial"

    private struct State {
        var total: UInt64 = 0
        var kept: [UInt8] = []
    }

    private let state = Mutex(State())
    private let clock: ClockDevice

    init(clock: ClockDevice) {
        self.clock = clock
    }

    /// Writes a line, prefixed with the workload's clock.
    func write(_ line: String) {
        let milliseconds = clock.now / 1_000_000
        let fraction = String(1000 + milliseconds % 1000).dropFirst()
        let bytes = Array("[\(milliseconds / 1000).\(fraction)] \(line)\n".utf8)
        state.withLock { state in
            state.total += UInt64(bytes.count)
            state.kept.append(contentsOf: bytes)
            state.kept.removeFirst(max(0, state.kept.count - ConsoleDevice.capacity))
        }
    }

    /// The kept output, whose first line may be cut.
    var text: String { state.withLock { String(decoding: $0.kept, as: UTF8.self) } }

    /// The number of bytes ever written.
    var total: UInt64 { state.withLock { $0.total } }

    func save() -> [UInt8] {
        state.withLock { state in
            var writer = StateWriter()
            writer.append(state.total)
            writer.append(state.kept)
            return writer.bytes
        }
    }

    func load(_ state: [UInt8]) throws {
        var reader = StateReader(state, of: name)
        let total = try reader.nextCount(of: "bytes written")
        let kept = Array(reader.takeRest())
        guard kept.count == min(total, UInt64(ConsoleDevice.capacity)) else {
            throw reader.malformed("the console keeps \(kept.count) of \(total) bytes")
        }
        self.state.withLock { $0 = State(total: total, kept: kept) }
    }
}
