/// What is to happen in one round, all of it drawn from one number.
struct TorturePlan: CustomStringConvertible {
    enum Fault: String, CaseIterable {
        case killSource, killDestination, killMigrate, stopSource, stopDestination, stopMigrate
        case cutLink, cutToSource, cutToDestination, cancel
    }

    /// A fault at a time after the migration was begun, and how long it lasts where it ends; in milliseconds.
    struct Blow {
        let fault: Fault
        let at: Int
        let lasts: Int
    }

    let seed: UInt64
    let mebibytes: Int
    let threads: Int
    let faultThreads: Int
    let usesLease: Bool
    let waitsAfterRefusal: Bool
    /// In MiB/s; 0 for as fast as it goes.
    let pushLimit: Int
    let devices: [String]
    /// The disk's image is locked by somebody else at first, so that the start is refused.
    let diskIsTaken: Bool
    let blows: [Blow]

    init(seed: UInt64) {
        var random = Stream(state: seed)
        self.seed = seed
        mebibytes = [8, 16].randomElement(using: &random) ?? 8
        threads = Int.random(in: 1...2, using: &random)
        faultThreads = Int.random(in: 1...3, using: &random)
        usesLease = Int.random(in: 0..<4, using: &random) > 0
        waitsAfterRefusal = Bool.random(using: &random)
        pushLimit = [0, 0, 50, 200].randomElement(using: &random) ?? 0
        var devices: [String] = []
        for slow in ["slow:save", "slow:load", "slow:start"] where Int.random(in: 0..<3, using: &random) == 0 {
            devices.append("\(slow)=0.0\(Int.random(in: 1...9, using: &random))")
        }
        let special = Int.random(in: 0..<8, using: &random)
        if special == 0 { devices.append("broken:start") }
        if special == 1 { devices.append("broken:load") }
        diskIsTaken = special == 2
        if special == 2 || special == 3 { devices.append("disk:") }
        self.devices = devices
        let count = [1, 1, 1, 2, 2, 3].randomElement(using: &random) ?? 1
        // The link is broken in one way at a time.
        let cuts: [Fault] = [.cutLink, .cutToSource, .cutToDestination]
        let cut = cuts.randomElement(using: &random)
        let faults = Fault.allCases.filter { !cuts.contains($0) || $0 == cut }
        blows = faults.shuffled(using: &random).prefix(count).map { fault in
            Blow(
                fault: fault,
                at: Int.random(in: 0..<150, using: &random),
                lasts: Int.random(in: 20..<500, using: &random)
            )
        }.sorted { $0.at < $1.at }
    }

    var description: String {
        let blows = blows.map { "\($0.fault) at \($0.at) for \($0.lasts) ms" }.joined(separator: ", ")
        return
            "seed \(seed): \(mebibytes) MiB, \(threads) threads, \(faultThreads) for faults, \(usesLease ? "lease" : "no lease"), "
            + "\(waitsAfterRefusal ? "wait" : "resume"), push \(pushLimit), devices \(devices), "
            + "disk \(diskIsTaken ? "taken" : "free"), \(blows)"
    }

    /// SplitMix64.
    private struct Stream: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var word = state
            word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
            word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
            return word ^ (word >> 31)
        }
    }
}
