import Testing

@testable import LinuxSystem

@Suite
struct MemoryGroupTests {
    private static let mounts = """
        24 1 0:22 / /proc rw,relatime - proc proc rw
        30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
        """
    private static let oldMounts = """
        33 25 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
        34 25 0:29 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
        41 25 0:36 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
        """

    @Test func `the groups of a process are found from its own to the outermost`() {
        let groups = MemoryGroup.all(groups: "0::/vms.slice/vm1.scope\n", mounts: Self.mounts)
        #expect(
            groups.map(\.path) == ["/sys/fs/cgroup/vms.slice/vm1.scope", "/sys/fs/cgroup/vms.slice", "/sys/fs/cgroup"]
        )
        #expect(groups.allSatisfy { $0.limitName == "memory.max" })
    }

    @Test func `groups of the first version are found beside those of the second`() {
        let groups = MemoryGroup.all(groups: "9:cpu:/\n4:memory:/vm1\n0::/\n", mounts: Self.oldMounts)
        #expect(groups.map(\.path) == ["/sys/fs/cgroup/memory/vm1", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"])
        #expect(groups[0].limitName == "memory.limit_in_bytes")
    }

    @Test func `a mount that shows a part of the hierarchy shows the groups in it`() {
        let mounts = "30 24 0:26 /pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
        #expect(
            MemoryGroup.all(groups: "0::/pod/vm1", mounts: mounts).map(\.path)
                == ["/sys/fs/cgroup/vm1", "/sys/fs/cgroup"]
        )
        #expect(MemoryGroup.all(groups: "0::/other/vm1", mounts: mounts).isEmpty)
        #expect(MemoryGroup.all(groups: "0::/../other", mounts: Self.mounts).isEmpty)
    }

    @Test(arguments: ["", "x", "0:", "4:memory", "::::", "30 24 - - -"])
    func `text of another form names no group`(text: String) {
        #expect(MemoryGroup.all(groups: text, mounts: text).isEmpty)
    }

    @Test func `a group without a limit is not full`() {
        let group = MemoryGroup.all(groups: "0::/none", mounts: Self.mounts)[0]
        #expect(group.limit == nil && !group.isFull)
    }
}
