/// The events of one round, all drawn from one seed.
struct TorturePlan: CustomStringConvertible {
    /// A fault or command during one migration; the names speak of that migration's source and destination.
    enum Fault: String {
        case killSource, killDestination, killMigrate, stopSource, stopDestination, stopMigrate
        case cutLink, cutToSource, cutToDestination, cancel
        /// No process can write into the store of the run lease.
        case freezeStore
        /// The packets by which the source opens connections are lost.
        case loseOpenings
        /// Other commands of an operator.
        case cont, cancelDestination, migrateAgain, recover, quitSource, quitDestination, endSource, endDestination

        static let cuts: [Fault] = [.cutLink, .cutToSource, .cutToDestination]
        fileprivate static let plain: [Fault] =
            [.killSource, .killDestination, .killMigrate, .stopSource, .stopDestination, .stopMigrate] + cuts + [
                .cancel
            ]
        fileprivate static let words: [Fault] = [.cont, .cancelDestination, .migrateAgain, .recover]
        fileprivate static let ends: [Fault] = [.quitSource, .quitDestination, .endSource, .endDestination]
    }

    /// A fault, when it strikes after the migration has begun, and how long it lasts; in milliseconds.
    struct Blow {
        let fault: Fault
        let at: Int
        let lasts: Int
    }

    /// The second migration of a round.
    struct Next {
        enum Way: String, CaseIterable {
            /// The workload moves to the third host.
            case onward
            /// The workload moves back, or the failed first migration is repeated.
            case again
        }

        let way: Way
        let blows: [Blow]
        /// When the first migration's source, which could not learn of its completion, can receive again.
        ///
        /// In milliseconds after the second migration has begun; nil if the source learns of the completion in time.
        let sourceResumes: Int?
        /// The percentage of memory that has arrived when that source is stopped or can no longer receive.
        let sourceStops: Int
        /// Whether that source loses all packets from its destination; if not, the source is stopped.
        let isCutOff: Bool
    }

    /// How the last agent with the workload exits.
    enum Ending: String, CaseIterable {
        case quit, terminate, kill
    }

    let seed: UInt64
    let mebibytes: Int
    let threads: Int
    let faultThreads: Int
    let usesLease: Bool
    let waitsAfterRefusal: Bool
    /// The limit of the push in MiB/s; 0 for no limit.
    let pushLimit: Int
    let devices: [String]
    /// Whether a foreign process locks the disk's image at first, so that the start is refused.
    let diskIsTaken: Bool
    let blows: [Blow]
    /// Whether destinations start the workload only on `cont`.
    let startsStopped: Bool
    /// The number that selects the connections whose opening packets are lost; nil for all connections.
    let lostPort: Int?
    let next: Next?
    let ending: Ending
    /// How long the store is frozen when the last agent exits, and when its lease is taken over.
    ///
    /// In milliseconds; nil for not at all.
    let endFreezes: Int?

    init(seed: UInt64) {
        var random = SplitMix64(state: seed)
        self.seed = seed
        mebibytes = [8, 16].randomElement(using: &random) ?? 8
        threads = Int.random(in: 1...2, using: &random)
        faultThreads = Int.random(in: 1...3, using: &random)
        usesLease = Int.random(in: 0..<4, using: &random) > 0
        waitsAfterRefusal = Bool.random(using: &random)
        let pushLimit = [0, 0, 50, 200].randomElement(using: &random) ?? 0
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
        let plain = TorturePlan.plainBlows(&random)
        startsStopped = random.chance(of: 5)
        lostPort = random.chance(of: 4) ? nil : Int.random(in: 0...3, using: &random)
        let blows = TorturePlan.add(to: plain, usesLease: usesLease, startsStopped: startsStopped, &random)
        ending = Ending.allCases.randomElement(using: &random) ?? .quit
        endFreezes = random.chance(of: 4) ? Int.random(in: 20..<700, using: &random) : nil
        guard random.chance(of: 2) else {
            next = nil
            self.blows = blows
            self.pushLimit = pushLimit
            return
        }
        let isUnfinished = random.chance(of: 3)
        // No other blow may prevent the migration from completing. The push is slow, so that the blow strikes in time.
        self.blows = isUnfinished ? [] : blows
        self.pushLimit = isUnfinished ? 6 : pushLimit
        let nextPlain = random.chance(of: 2) ? TorturePlan.plainBlows(&random) : []
        next = Next(
            way: Next.Way.allCases.randomElement(using: &random) ?? .onward,
            blows: random.chance(of: 2)
                ? TorturePlan.add(to: nextPlain, usesLease: usesLease, startsStopped: startsStopped, &random)
                : nextPlain,
            sourceResumes: isUnfinished ? Int.random(in: 0..<500, using: &random) : nil,
            sourceStops: Int.random(in: 90...99, using: &random),
            isCutOff: random.chance(of: 3) == false
        )
    }

    /// Draws faults of processes and the link, and a cancel.
    private static func plainBlows(_ random: inout SplitMix64) -> [Blow] {
        let count = [1, 1, 1, 2, 2, 3].randomElement(using: &random) ?? 1
        // The link has only one fault at a time.
        let cut = Fault.cuts.randomElement(using: &random)
        let faults = Fault.plain.filter { !Fault.cuts.contains($0) || $0 == cut }
        return faults.shuffled(using: &random).prefix(count).map { fault in
            Blow(
                fault: fault,
                at: Int.random(in: 0..<150, using: &random),
                lasts: Int.random(in: 20..<500, using: &random)
            )
        }.sorted { $0.at < $1.at }
    }

    /// Adds faults of the store and of opening connections, and commands of operators.
    private static func add(
        to plain: [Blow],
        usesLease: Bool,
        startsStopped: Bool,
        _ random: inout SplitMix64
    ) -> [Blow] {
        var blows = plain
        if random.chance(of: 3), usesLease {
            let at = Int.random(in: 0..<200, using: &random)
            // Now and then the store is frozen for longer than an agent waits.
            let lasts = random.chance(of: 16) ? 10_500 : Int.random(in: 20..<700, using: &random)
            blows.append(Blow(fault: .freezeStore, at: at, lasts: lasts))
            if random.chance(of: 3), let killed = [Fault.killSource, .killDestination].randomElement(using: &random) {
                let late = Int.random(in: 5..<min(lasts, 200), using: &random)
                blows.append(Blow(fault: killed, at: at + late, lasts: 0))
            }
        }
        if random.chance(of: 3) {
            let at = Int.random(in: 0..<60, using: &random)
            blows.append(Blow(fault: .loseOpenings, at: at, lasts: Int.random(in: 100..<700, using: &random)))
        } else if random.chance(of: 5), !plain.contains(where: { Fault.cuts.contains($0.fault) }) {
            // Lanes of the second link open so late that they meet the third link.
            let first = Int.random(in: 30..<120, using: &random)
            let second = first + Int.random(in: 450..<900, using: &random)
            blows.append(Blow(fault: .cutLink, at: first, lasts: 350))
            blows.append(Blow(fault: .loseOpenings, at: first + 100, lasts: Int.random(in: 300..<900, using: &random)))
            blows.append(Blow(fault: .cutLink, at: second, lasts: 350))
        }
        if startsStopped, random.chance(of: 3) {
            // The death of the source leaves a permission to start behind.
            blows.append(Blow(fault: .killSource, at: Int.random(in: 100..<400, using: &random), lasts: 0))
        }
        if random.chance(of: 6) {
            // The source does not learn of the start, and its operator takes the workload back.
            let cut = Int.random(in: 40..<160, using: &random)
            let cancel = cut + Int.random(in: 320..<600, using: &random)
            blows.append(Blow(fault: .cutLink, at: cut, lasts: Int.random(in: 350..<900, using: &random)))
            blows.append(Blow(fault: .cancel, at: cancel, lasts: 0))
        }
        for word in Fault.words where random.chance(of: 6) {
            blows.append(Blow(fault: word, at: Int.random(in: 0..<600, using: &random), lasts: 0))
        }
        if random.chance(of: 8), let end = Fault.ends.randomElement(using: &random) {
            blows.append(Blow(fault: end, at: Int.random(in: 0..<200, using: &random), lasts: 0))
        }
        return blows.sorted { $0.at < $1.at }
    }

    var description: String {
        return
            "seed \(seed): \(mebibytes) MiB, \(threads) threads, \(faultThreads) for faults, \(usesLease ? "lease" : "no lease"), "
            + "\(waitsAfterRefusal ? "wait" : "resume"), push \(pushLimit), devices \(devices), "
            + "disk \(diskIsTaken ? "taken" : "free"), \(startsStopped ? "stopped, " : "")"
            + "openings \(lostPort.map { "\($0)" } ?? "all"), \(TorturePlan.text(blows)); "
            + (next.map {
                "then \($0.way) with \(TorturePlan.text($0.blows)), source \($0.isCutOff ? "hears nothing" : "stops") from \($0.sourceStops) %, "
                    + "goes on \($0.sourceResumes.map { "\($0) ms" } ?? "never"); "
            } ?? "") + "ends by \(ending)"
            + (endFreezes.map { " while the store is frozen for \($0) ms" } ?? "")
    }

    private static func text(_ blows: [Blow]) -> String {
        blows.map { "\($0.fault) at \($0.at) for \($0.lasts) ms" }.joined(separator: ", ")
    }
}
