import Glibc
import Guest
import LandedGuest
import LinuxSystem
import Testing

@testable import Workloads

@Suite("Devices that hold something of their host", .timeLimit(.minutes(1)))
struct HostDeviceTests {
    /// Why a device cannot be had; nil if it can.
    private func refusal(_ devices: DeviceSet) -> String? {
        do throws(DeviceError) {
            try devices.acquire()
            return nil
        } catch {
            return error.reason
        }
    }

    @Test("A disk is held by one side at a time")
    func disk() throws {
        let image = try TemporaryFile([0])
        let source = try BuiltInWorkload(new: .small(.random, devices: [.disk(path: image.path)]))
        try source.devices.acquire()
        // Held already.
        try source.devices.acquire()
        let destination = try source.moved()
        #expect(
            refusal(destination.devices)
                == "cannot lock \(image.path): \(strerror(EAGAIN).map { String(cString: $0) } ?? ""); "
                + "another holds it, see: fuser -v \(image.path)"
        )
        try source.devices.release()
        try source.devices.release()
        try destination.devices.acquire()
        #expect(refusal(source.devices) != nil)
        try destination.devices.release()
        try source.devices.acquire()
    }

    @Test("A disk counts how often it was given to the workload, on all hosts")
    func acquisitions() throws {
        let image = try TemporaryFile([])
        let source = DiskDevice(name: "disk", path: image.path)
        for _ in 1...3 {
            try source.acquire()
            source.release()
        }
        let destination = DiskDevice(name: "disk", path: "/elsewhere/\(image.path.dropFirst(5))")
        try destination.load(source.save())
        #expect(destination.acquisitions == 3)
    }

    @Test("A disk does not take another disk's state, or a damaged one")
    func otherDisk() throws {
        let disk = DiskDevice(name: "disk", path: "/srv/a.img")
        let error = #expect(throws: DeviceError.self) {
            try disk.load(DiskDevice(name: "disk", path: "/srv/b.img").save())
        }
        #expect(error?.reason == "its state is of the image b.img, not of /srv/a.img")
        for state in [[], [1], disk.save().dropLast()] as [[UInt8]] {
            #expect(throws: DeviceError.self) { try disk.load(state) }
        }
    }

    @Test(
        "A disk that was given away more often than can be is refused",
        arguments: [UInt64.max, UInt64.max - 1, 1 << 62] as [UInt64]
    )
    func acquisitionsThatOverflow(count: UInt64) throws {
        let image = try TemporaryFile([])
        let disk = DiskDevice(name: "disk", path: image.path)
        let name = image.path.utf8.dropFirst(5)
        let state = withUnsafeBytes(of: count.littleEndian) { Array($0) } + name
        let error = #expect(throws: DeviceError.self) { try disk.load(state) }
        #expect(error?.reason == "its state cannot be read: it says \(count) acquisitions")
        try disk.load([255, 255, 255, 255, 255, 255, 255, 0x3f] + name)
        for _ in 1...2 {
            try disk.acquire()
            disk.release()
        }
    }

    @Test("A disk that is not there is told")
    func noDisk() {
        let disk = DeviceSet([DiskDevice(name: "disk", path: "/nowhere/a.img")])
        #expect(refusal(disk) == "cannot open /nowhere/a.img: No such file or directory")
    }

    /// A hook that notes its calls in a file beside it, and then does what the script says.
    private final class Script {
        let file: TemporaryFile
        let calls: TemporaryFile

        init(_ script: String) throws {
            calls = try TemporaryFile([])
            file = try TemporaryFile(Array("#!/bin/sh\necho \"$@\" >> \(calls.path)\n\(script)\n".utf8))
            chmod(file.path, 0o700)
        }

        func hook(seconds: UInt64 = 30, undoSeconds: UInt64 = 5) -> HookDevice {
            HookDevice(path: file.path, workload: "vm", seconds: seconds, undoSeconds: undoSeconds)
        }

        var notes: [Substring] { (ProcessFile.text(calls.path) ?? "").split(separator: "\n") }
    }

    @Test("A hook is called once before a start, and once after a stop")
    func hook() throws {
        let script = try Script("true")
        let hook = script.hook()
        try hook.release()
        #expect(script.notes == [])
        try hook.acquire()
        try hook.acquire()
        #expect(script.notes == ["start vm"])
        try hook.release()
        try hook.release()
        #expect(script.notes == ["start vm", "undo vm"])
        try hook.acquire()
        #expect(script.notes == ["start vm", "undo vm", "start vm"])
    }

    @Test(
        "A hook that fails refuses the start with its first line, and is undone",
        arguments: [
            ("[ $1 = undo ] || exit 3", "ended with status 3"),
            ("[ $1 = undo ] || { echo no volume >&2; echo more >&2; exit 1; }", "ended with status 1: no volume"),
            ("[ $1 = undo ] || { echo gone >&2; kill -KILL $$; }", "was ended by signal 9: gone"),
            ("[ $1 = undo ] || { echo waits >&2; sleep 60; }", "did not end within 3 s: waits"),
        ]
    )
    func failingHook(body: String, outcome: String) throws {
        let script = try Script(body)
        let devices = DeviceSet([script.hook(seconds: body.contains("sleep") ? 3 : 30)])
        #expect(refusal(devices) == "\(script.file.path) start \(outcome)")
        #expect(script.notes == ["start vm", "undo vm"])
        try devices.release()
        #expect(script.notes == ["start vm", "undo vm"])
    }

    @Test(
        "A hook that never ends holds the workload up for one time limit, its undo included",
        arguments: [
            ("sleep 60", "did not end within 3 s", "did not end within 1 s"),
            // What the start leaves of its time is the undo's.
            ("[ $1 = undo ] || exit 3; sleep 60", "ended with status 3", "did not end within 4 s"),
        ]
    )
    func endlessHook(body: String, start: String, undo: String) throws {
        let script = try Script(body)
        let begin = MonotonicClock.now()
        let reason = refusal(DeviceSet([script.hook(seconds: 3, undoSeconds: 1)]))
        #expect(reason?.contains(" start \(start)") == true, "\(reason ?? "")")
        #expect(reason?.contains(" undo \(undo)") == true, "\(reason ?? "")")
        #expect(MonotonicClock.now() - begin < 10_000_000_000)
    }

    @Test("A hook that is no program is told, and not undone")
    func noHook() throws {
        let hook = DeviceSet([HookDevice(path: "/nowhere/hook", workload: "vm")])
        #expect(refusal(hook) == "cannot run /nowhere/hook: No such file or directory")
    }

    @Test("A hook has no state")
    func hookState() throws {
        let hook = HookDevice(path: "/h", workload: "vm")
        try hook.load(hook.save())
        #expect(throws: DeviceError.self) { try hook.load([1]) }
    }

    @Test("A hook whose undo fails says so, and is undone by the next release that succeeds")
    func failedUndo() throws {
        let broken = try TemporaryFile([])
        let script = try Script("[ $1 = start ] || [ ! -e \(broken.path) ] || { echo busy >&2; exit 4; }")
        let devices = DeviceSet([script.hook()])
        try devices.acquire()
        for _ in 1...2 {
            let error = #expect(throws: DeviceError.self) { try devices.release() }
            #expect(error?.reason == "\(script.file.path) undo ended with status 4: busy")
        }
        unlink(broken.path)
        try devices.release()
        try devices.release()
        #expect(script.notes == ["start vm", "undo vm", "undo vm", "undo vm"])
    }

    @Test("A hook whose start and undo fail says both, and is undone by the next release")
    func failedStartAndUndo() throws {
        let broken = try TemporaryFile([])
        let script = try Script("[ ! -e \(broken.path) ] || { echo busy >&2; exit 4; }")
        let devices = DeviceSet([script.hook()])
        let path = script.file.path
        #expect(
            refusal(devices) == "\(path) start ended with status 4: busy; \(path) undo ended with status 4: busy"
        )
        unlink(broken.path)
        try devices.release()
        try devices.release()
        #expect(script.notes == ["start vm", "undo vm", "undo vm"])
    }

    @Test("A hook that is half undone is started again before the workload")
    func startAfterFailedUndo() throws {
        let script = try Script("[ $1 = start ]")
        let devices = DeviceSet([script.hook()])
        try devices.acquire()
        #expect(throws: DeviceError.self) { try devices.release() }
        try devices.acquire()
        #expect(script.notes == ["start vm", "undo vm", "start vm"])
    }

    @Test("A hook that arrives runs only where it is allowed")
    func allowedHook() throws {
        let description = WorkloadConfiguration.small(.random, devices: [.hook(path: "/srv/hook")]).description
        for landing in [BuiltInLanding(), BuiltInLanding(allowingHooks: ["/srv", "/srv/hook2"])] {
            let error = #expect(throws: WorkloadError.self) { _ = try landing.land(description) }
            #expect(
                error?.description
                    == "the workload brings hook:/srv/hook, which may not run here; allow it with --allow-hook"
            )
        }
        _ = try BuiltInLanding(allowingHooks: ["/srv/hook"]).land(description)
    }

    @Test("A disk that arrives is refused where no folder is allowed, and where another is")
    func allowedDisk() throws {
        let description = WorkloadConfiguration.small(.random, devices: [.disk(path: "/srv/disks/a.img")]).description
        for landing in [BuiltInLanding(), BuiltInLanding(allowingDisksIn: [try AllowedFolder("/tmp")])] {
            let error = #expect(throws: WorkloadError.self) { _ = try landing.land(description) }
            #expect(
                error?.description
                    == "the workload brings disk:/srv/disks/a.img, which may not be used here; allow its folder with "
                    + "--allow-disk"
            )
        }
    }

    @Test("A disk that arrives is locked in its folder, and refused in one way whatever else is there")
    func disksInFolders() throws {
        let image = try TemporaryFile([])
        let folder = "\(image.path)-folder"
        mkdir(folder, 0o700)
        mkdir("\(folder)/inner", 0o700)
        mkfifo("\(folder)/pipe", 0o600)
        defer {
            for name in ["a.img", "inner/b.img", "outside", "absolute", "pipe", "inside"] {
                unlink("\(folder)/\(name)")
            }
            rmdir("\(folder)/inner")
            rmdir(folder)
        }
        for name in ["a.img", "inner/b.img"] { close(open("\(folder)/\(name)", O_CREAT | O_RDWR | O_CLOEXEC, 0o600)) }
        symlink("../\(image.path.dropFirst(5))", "\(folder)/outside")
        symlink(image.path, "\(folder)/absolute")
        symlink("inner/b.img", "\(folder)/inside")
        let folders = [try AllowedFolder(folder)]
        func refusal(_ path: String) -> String? {
            self.refusal(DeviceSet([DiskDevice(name: "disk", path: path, in: folders)]))
        }
        for name in ["a.img", "inner/b.img", "inside", "./a.img", "inner/../a.img"] {
            #expect(refusal("\(folder)/\(name)") == nil)
        }
        let others = [
            "\(folder)/gone", "\(folder)/pipe", "\(folder)/inner", "\(folder)/outside", "\(folder)/absolute",
            "\(folder)/../\(image.path.dropFirst(5))", "\(folder)", "\(folder)/", image.path, "/etc/shadow", "/dev/tty",
            "\(folder)x", "/nowhere/at/all",
        ]
        for path in others {
            let reason = strerror(EACCES).map { String(cString: $0) } ?? ""
            #expect(
                refusal(path)
                    == "cannot lock \(path): \(reason); it is no regular file in a folder that may be used"
            )
        }
    }

    @Test("A pipe that an operator gives as a disk is refused without being opened")
    func pipe() throws {
        let image = try TemporaryFile([])
        let pipe = "\(image.path)-pipe"
        mkfifo(pipe, 0o600)
        defer { unlink(pipe) }
        #expect(
            refusal(DeviceSet([DiskDevice(name: "disk", path: pipe)]))?.hasSuffix("; give a regular file") == true
        )
        // A writer that was opened, or a reader, would let this succeed at once.
        let writer = open(pipe, O_WRONLY | O_NONBLOCK | O_CLOEXEC)
        #expect(writer == -1 && errno == ENXIO)
    }
}
