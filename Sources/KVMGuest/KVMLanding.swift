public import Guest
public import LinuxSystem

/// A place in this process where guests of the kernel's virtual machines can arrive.
public struct KVMLanding: Landing {
    private let output: OutputFile?

    /// Makes a landing.
    ///
    /// - Parameter output: where what a guest writes to its serial port goes to; nil for nowhere.
    public init(output: OutputFile? = nil) {
        self.output = output
    }

    /// Makes memory, registered and empty, and a stopped virtual machine around it.
    ///
    /// - Throws: ``KVMGuestError`` when there can be no such guest here; `SystemError` when the kernel refuses, such as
    ///   where /dev/kvm is missing.
    public func prepare(
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
