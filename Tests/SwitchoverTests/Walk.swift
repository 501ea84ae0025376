import Identity
import Switchover

/// A breadth-first walk over every reachable world.
///
/// The walk keeps only a 64-bit fingerprint of each visited world, and the step by which it was reached. In one of
/// 300 000 walks of ten million worlds, two worlds have the same fingerprint by chance.
struct Walk {
    /// A world in which a property does not hold, and the shortest path to it.
    struct Finding: CustomStringConvertible {
        let property: Property
        let trace: [String]

        var description: String {
            "\(property): \(property.rawValue)\n" + trace.map { "  \($0)\n" }.joined()
        }
    }

    /// Further questions of a walk, beside broken properties.
    struct Questions {
        /// Worlds that the walk must see at least once.
        var sights: [(name: String, isSeen: (World) -> Bool)] = []
        /// Worlds that the walk must never see, beside those that break a property.
        var absurdities: [(name: String, isSeen: (World) -> Bool)] = []
        /// A goal, to which a path must lead from every world that ``isBound`` names.
        var isGoal: ((World) -> Bool)?
        var isBound: (World) -> Bool = { _ in true }
        /// Worlds that need no path to the goal, for a known reason.
        var isExcused: (World) -> Bool = { _ in false }
        /// Called for every step of the walk, with the worlds before and after the step.
        var onStep: ((_ before: World, _ after: World) -> Void)?
    }

    let start: World
    let behaviour: Behaviour
    /// The number of visited worlds.
    private(set) var count = 0
    private(set) var finding: Finding?
    /// Whether the walk was abandoned because there are more worlds than it may visit.
    private(set) var isTooLarge = false
    /// The sights that were not seen.
    private(set) var unseen: [String] = []
    /// The absurdities that were seen.
    private(set) var absurd: Set<String> = []
    /// Worlds from which no path leads to the goal, and which are not excused.
    private(set) var stuck: [Int] = []
    /// Worlds from which no path leads to the goal, and which are excused.
    private(set) var excused: [Int] = []
    /// For each world, the world from which it was first reached, and the step.
    private var origins: [(world: Int32, step: Int32)] = []

    /// Walks from `start` until one of `properties` does not hold, or until every world was visited.
    ///
    /// Without `faults` nothing breaks and no side dies.
    init(
        from start: World,
        by behaviour: Behaviour = .shipped,
        checking properties: [Property] = Property.allCases,
        faults: Bool = true,
        atMost limit: Int = 6_000_000,
        asking questions: Questions = Questions()
    ) {
        self.start = start
        self.behaviour = behaviour
        var known: [Int: Int32] = [start.hashValue: 0]
        var layer = [start]
        origins = [(-1, 0)]
        var open = questions.sights
        var (goals, bound, excuses): ([Int32], [Int32], Set<Int32>) = ([], [], [])
        var successors: [Int32] = []
        var ends: [Int] = []
        while !layer.isEmpty {
            var next: [World] = []
            for world in layer {
                let steps = world.steps()
                let isQuiet = steps.allSatisfy(\.isFault)
                if let broken = properties.first(where: { !$0.holds(in: world, isQuiet, by: behaviour) }) {
                    finding = Finding(property: broken, trace: trace(to: count))
                    return
                }
                open.removeAll { $0.isSeen(world) }
                for absurdity in questions.absurdities where absurdity.isSeen(world) { absurd.insert(absurdity.name) }
                if let isGoal = questions.isGoal {
                    if isGoal(world) {
                        goals.append(Int32(count))
                    } else if questions.isBound(world) {
                        bound.append(Int32(count))
                        if questions.isExcused(world) { excuses.insert(Int32(count)) }
                    }
                }
                for (number, (step, isFault)) in steps.enumerated() where faults || !isFault {
                    var successor = world
                    _ = successor.take(step, by: behaviour)
                    questions.onStep?(world, successor)
                    let fresh = Int32(origins.count)
                    let index = { known in
                        if known == nil { known = fresh }
                        return known ?? fresh
                    }(&known[successor.hashValue])
                    if index == fresh {
                        origins.append((Int32(count), Int32(number)))
                        next.append(successor)
                    }
                    if questions.isGoal != nil { successors.append(index) }
                }
                ends.append(successors.count)
                count += 1
            }
            layer = next
            if origins.count > limit {
                isTooLarge = true
                return
            }
        }
        unseen = open.map(\.name)
        let reaching = Walk.reaching(goals, successors, ends)
        for index in bound where !reaching[Int(index)] {
            if excuses.contains(index) { excused.append(Int(index)) } else { stuck.append(Int(index)) }
        }
    }

    /// For each world, whether a path leads from it to one of `goals`.
    private static func reaching(_ goals: [Int32], _ successors: [Int32], _ ends: [Int]) -> [Bool] {
        // The reversed edges of all worlds in one array; `begins` gives the first edge of each world.
        var begins = [Int32](repeating: 0, count: ends.count + 1)
        for successor in successors { begins[Int(successor) + 1] += 1 }
        for index in ends.indices { begins[index + 1] += begins[index] }
        var free = begins
        var predecessors = [Int32](repeating: 0, count: successors.count)
        var begin = 0
        for (world, end) in ends.enumerated() {
            for successor in successors[begin..<end] {
                predecessors[Int(free[Int(successor)])] = Int32(world)
                free[Int(successor)] += 1
            }
            begin = end
        }
        var reaches = [Bool](repeating: false, count: ends.count)
        var open = goals
        for goal in goals { reaches[Int(goal)] = true }
        while let world = open.popLast() {
            for predecessor in predecessors[Int(begins[Int(world)])..<Int(begins[Int(world) + 1])]
            where !reaches[Int(predecessor)] {
                reaches[Int(predecessor)] = true
                open.append(predecessor)
            }
        }
        return reaches
    }

    /// The path from the start to a world, one line for each step.
    func trace(to index: Int) -> [String] {
        var numbers: [Int] = []
        var current = index
        while origins[current].world >= 0 {
            numbers.append(Int(origins[current].step))
            current = Int(origins[current].world)
        }
        var world = start
        return numbers.reversed().enumerated().map { number, choice in
            let step = world.steps()[choice].step
            let actions = world.take(step, by: behaviour).map(words)
            let runs =
                (world.runsOnSource ? "S" : "-") + (world.runsOnDestination ? "D" : "-")
                + (world.runsOnThird ? "T" : "-")
            return "\(number + 1). [runs \(runs)] \(step)"
                + (actions.isEmpty ? "" : " → ") + actions.joined(separator: ", ")
        }
    }
}
