import Switchover
import Testing

@Suite("The walk is seen to fail")
struct MutantTests {
    @Test("for each mutant, with the shortest way to the harm", .timeLimit(.minutes(1)), arguments: Mutant.all)
    func mutant(_ mutant: Mutant) throws {
        for property in mutant.breaks {
            let start = World(startsStopped: false, policy: .takeBack, conts: property == .contTellsTheTruth ? 1 : 0)
            let walk = Walk(from: start, by: mutant.behaviour, checking: [property])
            let finding = try #require(walk.finding, "\(mutant.testDescription) survives \(property)")
            print("\(mutant.testDescription): \(finding)")
            #expect(finding.trace.count <= 20)
        }
        let anything = Walk(from: World(startsStopped: false, policy: .takeBack), by: mutant.behaviour).finding
        #expect(anything != nil)
    }

    @Test("on every property by some mutant")
    func everyProperty() {
        #expect(Set(Mutant.all.flatMap(\.breaks)) == Set(Property.allCases))
    }
}
