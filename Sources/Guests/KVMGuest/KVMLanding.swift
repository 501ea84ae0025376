package import Guest
package import LinuxSystem

/// A place in this process where guests in KVM virtual machines can arrive.
package struct KVMLanding: Landing {
    private let output: OutputFile?

    /// Makes a landing; `/dev/kvm` is not opened before a guest arrives.
    ///
    /// - Parameter output: receives the bytes that a guest writes to its serial port; nil to drop them.
    package init(output: OutputFile? = nil) {
        self.output = output
    }

    /// Makes empty memory, registers it with a userfaultfd, and makes a stopped virtual machine with that memory.
    ///
    /// - Throws: ``KVMGuestError`` if this host cannot run such a guest; `SystemError` if the kernel refuses, for
    ///   instance because `/dev/kvm` is missing.
    package func prepare(
        _ description: GuestDescription,
        onMemory: @escaping @Sendable (consuming WaitingMemory) -> Void
    ) throws -> any Workload {
        let configuration = try KVMConfiguration(description)
        let memory = try configuration.makeMemory()
        let resident = try PageBitmap(pageCount: memory.pageCount)
        let userfaultfd = try Userfaultfd(wished: .threadID)
        try userfaultfd.register(memory.range)
        let workload = try KVMWorkload(configuration, memory: memory, output: output)
        let region = KeptObjects.WeakRegion(memory)
        onMemory(
            WaitingMemory(userfaultfd: userfaultfd, ranges: [memory.range], resident: [resident]) {
                KeptObjects.keep($0, in: [region])
            }
        )
        return workload
    }
}
