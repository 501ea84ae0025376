import CShims
import SystemPackage

/// The memory of another process, read by `process_vm_readv`.
package final class ProcessMemory: Sendable {
    private let process: PeerProcess

    /// Makes the memory of a process; whether this process may read it shows with the first read.
    package init(of process: consuming PeerProcess) {
        self.process = process
    }

    /// Copies bytes from the process.
    ///
    /// - Parameters:
    ///   - address: where the bytes begin in the process.
    ///   - buffer: receives the bytes.
    ///   - least: the bytes that must be copied.
    /// - Returns: the bytes copied; fewer than the buffer holds if a later byte cannot be read.
    /// - Throws: `Errno.noSuchProcess` if the process has ended, `Errno.badAddress` if a part of the first `least` bytes
    ///   is not mapped, `Errno.notPermitted` if this process may not read the other one's memory.
    func read(
        _ address: UInt64,
        into buffer: UnsafeMutableRawBufferPointer,
        atLeast least: Int
    ) throws(SystemError) -> Int {
        var done = 0
        do throws(Errno) {
            while done < buffer.count {
                let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
                done += try kernel(.processVMReadv, isForeign: true) {
                    shim_read_process(process.id, address + UInt64(done), rest.baseAddress, rest.count)
                }
            }
        } catch {
            guard done >= least else { throw ProcessMemory.failure(error, process.id) }
        }
        // The call names the process by its number. If the process is still there, the number was its own all along.
        guard !process.hasEnded else { throw ProcessMemory.failure(.noSuchProcess, process.id) }
        return done
    }

    private static func failure(_ errno: Errno, _ process: Int32) -> SystemError {
        let advice: String? =
            switch errno {
            case .notPermitted:
                "run the agent as root; or as the user of process \(process), which then must be dumpable, and permit it "
                    + "(/proc/sys/kernel/yama/ptrace_scope 0, or prctl(PR_SET_PTRACER) in the process)"
            case .badAddress: "the process has taken it away"
            default: nil
            }
        return SystemError("read the memory of process \(process)", errno, advice: advice)
    }
}
