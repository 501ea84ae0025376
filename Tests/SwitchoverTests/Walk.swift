import Switchover

/// Walks every world that can be reached, the nearest first.
struct Walk {
    /// A world in which a property does not hold, and the shortest way to it.
    struct Finding: CustomStringConvertible {
        let property: Property
        let trace: [String]

        var description: String {
            "\(property): \(property.rawValue)\n" + trace.map { "  \($0)\n" }.joined()
        }
    }

    let start: World
    let behaviour: Behaviour
    private(set) var worlds: [World] = []
    private(set) var finding: Finding?
    /// The world that each one was first reached from, and by which step.
    private var origins: [(world: Int, step: Step)?] = []
    private var successors: [[Int]] = []

    /// Walks from `start` until a property of `properties` does not hold, or to the end.
    ///
    /// Without `faults` nothing breaks and nobody dies.
    init(
        from start: World,
        by behaviour: Behaviour = .shipped,
        checking properties: [Property] = Property.allCases,
        faults: Bool = true
    ) {
        self.start = start
        self.behaviour = behaviour
        var known: [World: Int] = [start: 0]
        worlds = [start]
        origins = [nil]
        var next = 0
        while next < worlds.count {
            let world = worlds[next]
            if let broken = properties.first(where: { !$0.holds(in: world, by: behaviour) }) {
                finding = Finding(property: broken, trace: trace(to: next))
                return
            }
            var reached: [Int] = []
            for (step, isFault) in world.steps() where faults || !isFault {
                var successor = world
                _ = successor.take(step, by: behaviour)
                let index = known[successor] ?? worlds.count
                if index == worlds.count {
                    known[successor] = index
                    worlds.append(successor)
                    origins.append((next, step))
                }
                reached.append(index)
            }
            successors.append(reached)
            next += 1
        }
    }

    /// The way from the start to a world, a line a step.
    func trace(to index: Int) -> [String] {
        var steps: [Step] = []
        var current = index
        while let origin = origins[current] {
            steps.append(origin.step)
            current = origin.world
        }
        var world = start
        return steps.reversed().enumerated().map { number, step in
            let actions = world.take(step, by: behaviour).map(words)
            let runs = "\(world.runsOnSource ? "S" : "-")\(world.runsOnDestination ? "D" : "-")"
            return "\(number + 1). [runs \(runs)] \(step)"
                + (actions.isEmpty ? "" : " → ") + actions.joined(separator: ", ")
        }
    }

    /// The worlds from which none that satisfies `goal` can be reached.
    func worldsThatCannotReach(_ goal: (World) -> Bool) -> [Int] {
        var predecessors: [[Int]] = Array(repeating: [], count: worlds.count)
        for (world, reached) in successors.enumerated() {
            for successor in reached { predecessors[successor].append(world) }
        }
        var open = worlds.indices.filter { goal(worlds[$0]) }
        var good = Set(open)
        while let world = open.popLast() {
            for predecessor in predecessors[world] where good.insert(predecessor).inserted { open.append(predecessor) }
        }
        return worlds.indices.filter { !good.contains($0) }
    }
}
