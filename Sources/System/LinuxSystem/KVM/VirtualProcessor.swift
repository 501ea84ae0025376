import CShims
import Glibc
import Synchronization
import SystemPackage

/// A vCPU of a virtual machine: one thread at a time runs it, and any thread may interrupt it.
package final class VirtualProcessor: Sendable {
    /// Why the guest's code has stopped.
    package enum Exit: Hashable, Sendable {
        /// The guest has written a byte to an I/O port.
        case output(port: UInt16, byte: UInt8)
        /// The guest cannot continue, for this reason.
        case broken(reason: String)
    }

    /// The vCPU's number, from 0.
    package let index: Int
    let descriptor: OwnedDescriptor
    let floatingPointBytes: Int
    let modelRegisters: [UInt32]
    /// The struct kvm_run that the kernel shares, with the data of I/O behind it.
    private let page: Mapping
    /// The thread that runs the vCPU, to which ``interrupt()`` sends its signal.
    private let runner = Mutex<pthread_t?>(nil)

    init(
        index: Int,
        page: consuming Mapping,
        descriptor: consuming OwnedDescriptor,
        floatingPointBytes: Int,
        modelRegisters: [UInt32]
    ) {
        self.index = index
        self.page = page
        self.descriptor = descriptor
        self.floatingPointBytes = floatingPointBytes
        self.modelRegisters = modelRegisters
    }

    private var shared: UnsafeMutablePointer<kvm_run> { page.base.assumingMemoryBound(to: kvm_run.self) }

    /// The flag that the kernel reads as it enters the guest; if the flag is set, KVM_RUN returns at once.
    ///
    /// The ordering is relaxed, since the signal that follows a write orders it.
    private var immediateExit: UnsafeMutablePointer<Atomic<UInt8>> {
        // offsetof(struct kvm_run, immediate_exit), which the kernel's interface fixes.
        (page.base + 1).assumingMemoryBound(to: Atomic<UInt8>.self)
    }

    /// Forgets an interruption, so that the next ``run(_:)`` enters the guest; the vCPU must not be running.
    package func prepare() {
        immediateExit.pointee.store(0, ordering: .relaxed)
    }

    /// Makes ``run(_:)`` return soon, or the next call of it at once; may be called at any moment.
    package func interrupt() {
        immediateExit.pointee.store(1, ordering: .relaxed)
        // A thread that has not entered the guest yet sees the flag. A thread in the guest leaves it because of the
        // signal.
        runner.withLock { thread in
            guard let thread else { return }
            let result = pthread_kill(thread, VirtualProcessor.signal)
            precondition(result == 0, "a thread that runs a vCPU takes no signal: \(result)")
        }
    }

    /// Runs the guest on the calling thread until it is interrupted.
    ///
    /// When this returns, everything that the guest has begun is done, and its state can be saved.
    ///
    /// - Parameter take: receives each exit. When it returns, the guest continues, also after ``Exit/broken(reason:)``,
    ///   unless ``interrupt()`` was called.
    /// - Throws: a ``SystemError`` if the kernel cannot run the vCPU.
    package func run(_ take: (Exit) -> Void) throws(SystemError) {
        VirtualProcessor.takeSignal()
        runner.withLock { $0 = pthread_self() }
        defer { runner.withLock { $0 = nil } }
        let raw = descriptor.raw
        while true {
            let interrupted: CInt = 1
            let outcome = try attempt(
                "run vCPU \(index)",
                advice: "the guest's memory cannot be provided, or the kernel failed"
            ) { () throws(Errno) in
                try kernel(.kvmRun) {
                    let result = shim_ioctl(raw, shim_kvm_run, 0)
                    // Neither error is a bug of this program: EINTR is the signal, and EFAULT is memory that cannot be
                    // provided.
                    return result == -EINTR ? interrupted : result == -EFAULT ? -EIO : result
                }
            }
            if outcome == interrupted {
                // On its entry, the kernel completed what the last exit had left to do.
                if immediateExit.pointee.load(ordering: .relaxed) != 0 { return }
            } else {
                take(exit)
            }
        }
    }

    private var exit: Exit {
        let run = shared.pointee
        switch CInt(run.exit_reason) {
        case KVM_EXIT_IO:
            let io = run.io
            guard CInt(io.direction) == KVM_EXIT_IO_OUT, io.size == 1, io.count == 1 else {
                return .broken(reason: "it does unsupported I/O at port 0x\(String(io.port, radix: 16))")
            }
            let byte = page.base.load(fromByteOffset: Int(io.data_offset), as: UInt8.self)
            return .output(port: io.port, byte: byte)
        case KVM_EXIT_MMIO:
            let address = String(run.mmio.phys_addr, radix: 16)
            return .broken(reason: "it reads or writes at 0x\(address), where it has no memory")
        case KVM_EXIT_HLT: return .broken(reason: "it has halted")
        case KVM_EXIT_SHUTDOWN: return .broken(reason: "it has shut down after a triple fault")
        case KVM_EXIT_FAIL_ENTRY:
            let reason = String(run.fail_entry.hardware_entry_failure_reason, radix: 16)
            return .broken(reason: "the processor refuses to enter it: reason 0x\(reason)")
        case KVM_EXIT_INTERNAL_ERROR:
            return .broken(reason: "KVM cannot run what it executes: internal error \(run.internal.suberror)")
        case let reason: return .broken(reason: "KVM has left it for an unsupported reason: \(reason)")
        }
    }

    /// The signal that interrupts KVM_RUN, the first real-time signal; glibc and the Swift runtime use none of these.
    private static let signal: CInt = {
        let signal = __libc_current_sigrtmin()
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { _ in }
        let result = sigaction(signal, &action, nil)
        precondition(result == 0, "a real-time signal can always be handled")
        return signal
    }()

    /// Unblocks the signal on the calling thread, since a thread begins with the signals that its creator blocks.
    private static func takeSignal() {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, signal)
        let result = pthread_sigmask(SIG_UNBLOCK, &set, nil)
        precondition(result == 0, "a signal can always be taken")
    }
}
