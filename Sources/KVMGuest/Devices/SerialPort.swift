import Guest
import LinuxSystem
import Synchronization

/// The guest's serial port, on which each vCPU says that its memory is right, or that it isn't. Its state is the number of
/// good marks that the guest has ever written, 64 bits.
final class SerialPort: Device {
    /// The port of a PC's first serial interface.
    static let address: UInt16 = 0x3f8
    /// What the guest writes when its memory is wrong.
    private static let badMark = UInt8(ascii: "!")

    let name = "serial"
    private let output: OutputFile?
    private let goodMarks: ClosedRange<UInt8>

    private struct State {
        /// Since the guest's birth.
        var good: UInt64 = 0
        /// In this process: the first ends the guest.
        var bad = 0
        var activity = WorkloadActivity()
    }

    private let state = Mutex(State())

    init(processors: Int, output: OutputFile?) {
        self.output = output
        goodMarks = GuestMemory.goodMark(of: 0)...GuestMemory.goodMark(of: processors - 1)
    }

    /// Good marks since the guest's birth.
    var marks: UInt64 { state.withLock { $0.good } }

    /// Bad marks.
    var badMarks: Int { state.withLock { $0.bad } }

    /// The good marks in this process.
    var activity: WorkloadActivity { state.withLock { $0.activity } }

    /// Notes that the guest is to run.
    func begin() {
        state.withLock { state in
            state.activity.operationsSinceStart = 0
            state.activity.firstOperation = nil
        }
    }

    /// Takes a byte that a vCPU has written.
    ///
    /// - Returns: why the guest ends, if it does.
    func take(_ byte: UInt8, from processor: VirtualProcessor, _ memory: GuestMemory) -> String? {
        output?.write(byte)
        return state.withLock { state in
            if byte == SerialPort.badMark {
                state.bad += 1
                let page = (try? processor.registers()).map { ", at page \(memory.page(at: $0))" } ?? ""
                return "vCPU \(processor.index) has found what it did not write\(page)"
            }
            guard goodMarks.contains(byte) else { return nil }
            let now = MonotonicClock.now()
            state.good += 1
            state.activity.operations += 1
            state.activity.operationsSinceStart += 1
            state.activity.firstOperation = state.activity.firstOperation ?? now
            state.activity.lastOperation = now
            return nil
        }
    }

    func save() throws -> [UInt8] {
        guard badMarks == 0 else {
            throw DeviceError(device: name, reason: "the guest has found its memory wrong, and runs nowhere any more")
        }
        var writer = StateWriter()
        writer.append(marks)
        return writer.bytes
    }

    func load(_ state: [UInt8]) throws {
        var reader = StateReader(state, of: name)
        let good = try reader.nextCount(of: "good marks")
        try reader.finish()
        self.state.withLock { $0.good = good }
    }
}
