public import Guest
public import LinuxSystem
import Synchronization

/// A guest that has landed, with the memory that it was given at once.
public struct LandedGuest: ~Copyable {
    /// The guest.
    public let workload: any Workload
    /// Its memory.
    public let memory: WaitingMemory

    /// Gives the userfaultfd to whoever serves the faults.
    public consuming func takeUserfaultfd() -> Userfaultfd {
        memory.takeUserfaultfd()
    }
}

/// A landing has told of no memory, or of two.
public struct MemoryNotTold: Error {}

extension Landing {
    /// Lets a guest land that is given its memory at once.
    public func land(_ description: GuestDescription) throws -> LandedGuest {
        let told = Mutex<[Handover<WaitingMemory>]>([])
        let workload = try prepare(description) { memory in
            let memory = Handover(memory)
            told.withLock { $0.append(memory) }
        }
        let all = told.withLock(\.self)
        guard all.count == 1, let memory = all[0].take() else { throw MemoryNotTold() }
        return LandedGuest(workload: workload, memory: memory)
    }
}
