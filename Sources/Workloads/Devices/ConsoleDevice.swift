import Guest
import Synchronization

/// The guest's serial console: the newest 4 KiB of what was written to it, and how much that was in all.
final class ConsoleDevice: Device {
    /// Bytes kept.
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

    /// Writes a line, with the guest's time before it.
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

    /// What it keeps. A line at the beginning may be cut.
    var text: String { state.withLock { String(decoding: $0.kept, as: UTF8.self) } }

    /// Bytes ever written to it.
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
            throw reader.malformed("it keeps \(kept.count) of \(total) bytes")
        }
        self.state.withLock { $0 = State(total: total, kept: kept) }
    }
}
