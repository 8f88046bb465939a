// Predict, train and wait with the client that openapi-generator makes.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	linserve "linserve.test/linserve/client"
)

func check(err error) {
	if err != nil {
		if failed, ok := err.(*linserve.GenericOpenAPIError); ok {
			fmt.Fprintln(os.Stderr, string(failed.Body()))
		}
		panic(err)
	}
}

func rows(values ...float64) []linserve.Row {
	found := []linserve.Row{}
	for _, value := range values {
		found = append(found, linserve.Row{ArrayOfFloat64: &[]float64{value}})
	}
	return found
}

func main() {
	configuration := linserve.NewConfiguration()
	configuration.Servers = linserve.ServerConfigurations{{URL: os.Args[1]}}
	client := linserve.NewAPIClient(configuration)
	ctx := context.Background()

	train := func(solver *linserve.Solver, prefer string) []any {
		body := linserve.NewTrainRequest(rows(1, 2, 3, 4), rows(3, 5, 7, 9))
		body.SetModel("go")
		body.SetFeatureNames([]string{"x"})
		body.SetTargetNames([]string{"y"})
		body.Solver = solver
		job, _, err := client.TrainAPI.Train(ctx).TrainBody(linserve.TrainBody{TrainRequest: body}).Prefer(prefer).Execute()
		check(err)
		for job.Status == linserve.QUEUED || job.Status == linserve.RUNNING {
			job, _, err = client.JobsAPI.GetJob(ctx, job.Id).Execute()
			check(err)
		}
		return []any{job.Status, job.GetVersion()}
	}

	row := map[string]linserve.NamedRowValue{}
	for name, value := range map[string]float64{"temp": 75, "rainfall": 63, "humidity": 44} {
		number := value
		row[name] = linserve.NamedRowValue{Float64: &number}
	}
	named := []linserve.Row{{MapmapOfStringNamedRowValue: &row}}
	request := linserve.NewPredictRequest(named)
	request.SetInterval(0.95)
	shipped, _, err := client.PredictAPI.Predict(ctx).PredictRequest(*request).Execute()
	check(err)

	descent := linserve.NewGradientDescentOptions("gradient_descent")
	descent.SetEpochs(2)
	start := linserve.NewStartOptions()
	start.SetWeights([][]float64{{0}})
	start.SetIntercept([]float64{0})
	descent.Start = &linserve.Start{StartOptions: start}
	exact := linserve.NewExactOptions()
	penalty := 0.5
	exact.L2 = &linserve.L2{Float64: &penalty}
	jobs := [][]any{
		train(&linserve.Solver{GradientDescentOptions: descent}, "wait=30"),
		train(&linserve.Solver{ExactOptions: exact}, ""),
		train(nil, ""),
	}

	own, _, err := client.PredictAPI.PredictWithModel(ctx, "go").PredictRequest(*linserve.NewPredictRequest(rows(10))).Execute()
	check(err)

	_, _, err = client.PredictAPI.Predict(ctx).PredictRequest(*linserve.NewPredictRequest(rows(1))).Execute()
	problem := err.(*linserve.GenericOpenAPIError).Model().(linserve.Problem)

	found, err := json.Marshal(map[string]any{
		"shipped": shipped.Predictions,
		"jobs":    jobs,
		"own":     own.Predictions,
		"refused": problem.Title,
	})
	check(err)
	fmt.Println(string(found))
}
