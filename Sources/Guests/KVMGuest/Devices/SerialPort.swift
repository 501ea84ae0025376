import Guest
import LinuxSystem
import Synchronization

/// The guest's serial port, on which each vCPU reports whether its memory is right.
///
/// The port's state, 64 bits, counts the good marks: the reports that memory is right.
final class SerialPort: Device {
    /// The I/O port of a PC's first serial interface.
    static let address: UInt16 = 0x3f8
    /// The byte that a vCPU writes when it finds its memory or its registers wrong.
    private static let badMark = UInt8(ascii: "!")

    let name = "serial"
    private let output: OutputFile?
    private let goodMarks: ClosedRange<UInt8>

    private struct State {
        /// Good marks on all hosts since the guest was made.
        var good: UInt64 = 0
        /// Bad marks in this process, of which the first ends the guest.
        var bad = 0
        var activity = WorkloadActivity()
    }

    private let state = Mutex(State())

    init(processors: Int, output: OutputFile?) {
        self.output = output
        goodMarks = GuestMemory.goodMark(of: 0)...GuestMemory.goodMark(of: processors - 1)
    }

    /// Good marks on all hosts since the guest was made.
    var marks: UInt64 { state.withLock { $0.good } }

    /// Bad marks in this process.
    var badMarks: Int { state.withLock { $0.bad } }

    /// Good marks in this process, each as one operation.
    var activity: WorkloadActivity { state.withLock { $0.activity } }

    /// Notes that the guest is about to run.
    func begin() {
        state.withLock { state in
            state.activity.operationsSinceStart = 0
            state.activity.firstOperation = nil
        }
    }

    /// Takes a byte that a vCPU has written.
    ///
    /// - Returns: the reason for which the guest must end; nil if it may continue.
    func take(_ byte: UInt8, from processor: VirtualProcessor, _ memory: GuestMemory) -> String? {
        output?.write(byte)
        return state.withLock { state in
            if byte == SerialPort.badMark {
                state.bad += 1
                return "vCPU \(processor.index) has found data that it did not write, \(place(of: processor, memory))"
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

    private func place(of processor: VirtualProcessor, _ memory: GuestMemory) -> String {
        do throws(SystemError) {
            return "at page \(memory.page(at: try processor.registers()))"
        } catch {
            return "at an unknown page: \(error)"
        }
    }

    func save() throws -> [UInt8] {
        guard badMarks == 0 else {
            throw DeviceError(device: name, reason: "the guest has found its memory wrong, and cannot move")
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
