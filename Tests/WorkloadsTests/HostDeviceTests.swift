import Glibc
import Guest
import LandedGuest
import LinuxSystem
import Testing

@testable import Workloads

@Suite("Devices that hold a resource of their host", .timeLimit(.minutes(1)))
struct HostDeviceTests {
    /// The reason why a device cannot be acquired; nil if it can.
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
        // The disk is held already.
        try source.devices.acquire()
        let destination = try source.moved()
        #expect(
            refusal(destination.devices)
                == "cannot lock \(image.path): \(strerror(EAGAIN).map { String(cString: $0) } ?? ""); "
                + "it is in use; find its holder with: fuser -v \(image.path)"
        )
        try source.devices.release()
        try source.devices.release()
        try destination.devices.acquire()
        #expect(refusal(source.devices) != nil)
        try destination.devices.release()
        try source.devices.acquire()
    }

    @Test("A disk counts how often the workload has acquired it, on all hosts")
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

    @Test("A disk refuses another disk's state and a damaged state")
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
        "A disk with a number of acquisitions beyond the bound is refused",
        arguments: [UInt64.max, UInt64.max - 1, 1 << 62] as [UInt64]
    )
    func acquisitionsThatOverflow(count: UInt64) throws {
        let image = try TemporaryFile([])
        let disk = DiskDevice(name: "disk", path: image.path)
        let name = image.path.utf8.dropFirst(5)
        let state = withUnsafeBytes(of: count.littleEndian) { Array($0) } + name
        let error = #expect(throws: DeviceError.self) { try disk.load(state) }
        #expect(error?.reason == "its state cannot be read: \(count) acquisitions are too many")
        try disk.load([255, 255, 255, 255, 255, 255, 255, 0x3f] + name)
        for _ in 1...2 {
            try disk.acquire()
            disk.release()
        }
    }

    @Test("A missing disk is reported")
    func noDisk() {
        let disk = DeviceSet([DiskDevice(name: "disk", path: "/nowhere/a.img")])
        #expect(refusal(disk) == "cannot open /nowhere/a.img: No such file or directory; check the path")
    }

    /// A hook that appends its calls to a file, and then runs a script.
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
            (
                "[ $1 = undo ] || exit 3",
                "ended with status 3 and gave no reason on standard error; run it by hand: PATH start vm"
            ),
            ("[ $1 = undo ] || { echo no volume >&2; echo more >&2; exit 1; }", "ended with status 1: no volume"),
            ("[ $1 = undo ] || { echo gone >&2; kill -KILL $$; }", "was ended by signal 9: gone"),
            ("[ $1 = undo ] || { echo waits >&2; sleep 60; }", "did not end within 3 s: waits"),
        ]
    )
    func failingHook(body: String, outcome: String) throws {
        let script = try Script(body)
        let devices = DeviceSet([script.hook(seconds: body.contains("sleep") ? 3 : 30)])
        #expect(refusal(devices) == "\(script.file.path) start \(outcome.replacing("PATH", with: script.file.path))")
        #expect(script.notes == ["start vm", "undo vm"])
        try devices.release()
        #expect(script.notes == ["start vm", "undo vm"])
    }

    @Test(
        "A hook that never ends delays the workload by one time limit, including its undo",
        arguments: [
            ("sleep 60", "did not end within 3 s", "did not end within 1 s"),
            // The undo gets the rest of the start's time.
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

    @Test("A hook that is not a program is reported, and not undone")
    func noHook() throws {
        let hook = DeviceSet([HookDevice(path: "/nowhere/hook", workload: "vm")])
        #expect(refusal(hook) == "cannot run /nowhere/hook: No such file or directory; check the path")
    }

    @Test("A hook has no state")
    func hookState() throws {
        let hook = HookDevice(path: "/h", workload: "vm")
        try hook.load(hook.save())
        #expect(throws: DeviceError.self) { try hook.load([1]) }
    }

    @Test("A failed undo of a hook is reported, and the next successful release undoes the hook")
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

    @Test("A hook's failures of start and undo are both reported, and the next release undoes the hook")
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

    @Test(
        "A hook whose start and undo fail or never end counts as held until an undo succeeds",
        arguments: ["exit 3", "kill -KILL $$", "sleep 60"],
        ["exit 4", "sleep 60"]
    )
    func stuckUndo(start: String, undo: String) throws {
        let stuck = try TemporaryFile([])
        let script = try Script("[ ! -e \(stuck.path) ] || { [ $1 = start ] && { \(start); } || { \(undo); }; }")
        let devices = DeviceSet([script.hook(seconds: 1, undoSeconds: 1)])
        #expect(refusal(devices)?.contains(" undo ") == true)
        #expect(throws: DeviceError.self) { try devices.release() }
        unlink(stuck.path)
        try devices.release()
        #expect(script.notes == ["start vm", "undo vm", "undo vm", "undo vm"])
    }

    @Test("A hook that is half undone is started again before the workload starts")
    func startAfterFailedUndo() throws {
        let script = try Script("[ $1 = start ]")
        let devices = DeviceSet([script.hook()])
        try devices.acquire()
        #expect(throws: DeviceError.self) { try devices.release() }
        try devices.acquire()
        #expect(script.notes == ["start vm", "undo vm", "start vm"])
    }

    @Test("An arriving hook runs only if it is allowed")
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

    @Test("An arriving disk is refused if no folder, or only another folder, is allowed")
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

    @Test("An arriving disk is locked inside its folder, and any other path is refused with the same reason")
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
                    == "cannot lock \(path): \(reason); it is not a regular file in an allowed folder"
            )
        }
    }

    @Test("A pipe as a disk is refused without being opened")
    func pipe() throws {
        let image = try TemporaryFile([])
        let pipe = "\(image.path)-pipe"
        mkfifo(pipe, 0o600)
        defer { unlink(pipe) }
        #expect(
            refusal(DeviceSet([DiskDevice(name: "disk", path: pipe)]))?.hasSuffix("; give a regular file") == true
        )
        // If the pipe had been opened, this call would succeed.
        let writer = open(pipe, O_WRONLY | O_NONBLOCK | O_CLOEXEC)
        #expect(writer == -1 && errno == ENXIO)
    }
}
