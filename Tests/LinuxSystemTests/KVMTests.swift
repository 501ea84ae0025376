import LinuxSystem
import OwnThread
import SystemPackage
import Testing

#if DEBUG
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct KVMTests {
    @Test(arguments: [Errno.noSuchFileOrDirectory, .permissionDenied])
    func `the error about a missing /dev/kvm says how to get it`(errno: Errno) {
        let reason = ForcedErrno.with([.open: [errno]]) { KVM.unavailability }
        #expect(
            reason
                == "cannot open /dev/kvm: \(errno); load the module kvm_intel or kvm_amd, and run as root or join the "
                + "group kvm"
        )
    }

    @Test func `a KVM with another interface version is not used`() {
        let reason = ForcedErrno.with([.kvmCheckExtension: [.invalidArgument]]) { KVM.unavailability }
        #expect(reason == "cannot ask /dev/kvm for its API version: Invalid argument")
    }

    @Test(.enabled(if: KVM.unavailability == nil, "no virtual machine can run here: see `pageferry probe`"))
    func `a vCPU that the kernel cannot run any more is reported`() throws {
        let machine = try VirtualMachine(on: KVM(), hasInterruptChip: false)
        let processor = try machine.makeProcessor(0)
        let error = #expect(throws: SystemError.self) {
            try ForcedErrno.with([.kvmRun: [.interrupted, .ioError]]) { try processor.run { _ in } }
        }
        #expect(error?.action == "run vCPU 0")
    }
}
#endif
